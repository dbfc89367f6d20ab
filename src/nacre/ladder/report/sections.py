"""The sections that answer the question: recommendation, table, quality against cost, time, ownership."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nacre.ladder.report import charts, figures
from nacre.ladder.result import PARTS, Holding, LadderResult, Row
from nacre.ladder.words import Words, p_value, points
from nacre.lifecycle.evaluate.markup import figure, text

_NO = "–"


def verdict(result: LadderResult) -> str:
    """The headline, and in smaller letters what it rests on."""
    why, headline = result.recommended.why, result.recommended.headline
    rest = why.removeprefix(headline).strip()
    return f"<strong>{text(headline)}</strong> <span>{text(rest)}</span>" if headline else text(why)


def cards(result: LadderResult, words: Words) -> str:
    """The recommended tier in four figures; nothing where none is recommended."""
    row = result.row(result.recommended.name)
    if row is None:
        return ""
    quality = words("card_range", level=f"{100 * result.level:g}", low=_end(row.ci_low), high=_end(row.ci_high))
    trained = (
        words("unknown")
        if row.trained_parameters is None
        else words("card_trained", n=figures.count(row.trained_parameters))
        if row.trained_parameters
        else words("card_untrained")
    )
    latency = (
        words("unknown") if row.latency_ms_p50 is None else f"{figures.milliseconds(row.latency_ms_p50)} {words('ms')}"
    )
    beyond = ""
    if row.latency_ms_p95 is not None:
        beyond = words("card_p95", p95=f"{figures.milliseconds(row.latency_ms_p95)} {words('ms')}")
    build = words("unknown") if row.build_seconds is None else figures.seconds(row.build_seconds, words)
    items = (
        (words.name(result.metric), figures.score(row), quality),
        (words("card_cost"), figures.cost(row, result.currency, words), words(f"basis_{row.cost_basis}")),
        (words("card_latency"), latency, beyond),
        (words("card_build"), build, trained),
    )
    drawn = "".join(
        f'<div class="card"><h3>{text(head)}</h3><b>{text(value)}</b><small>{text(note)}</small></div>'
        for head, value, note in items
    )
    return f'<div class="cards">{drawn}</div>'


def _end(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f}"


def changes(result: LadderResult, words: Words) -> str:
    """What would change the recommendation, and remarks, beside the headline."""
    lines = [*result.recommended.would_change, *result.notes]
    if not lines:
        return ""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    head = f'<h2 id="h-changes">{text(words("ladder_changes"))}</h2>'
    return f'<aside aria-labelledby="h-changes">{head}<ul>{items}</ul></aside>'


def tiers(result: LadderResult, words: Words) -> str:
    """Every tier, those that could not run with their reason and remedy."""
    head = [
        ("tier", ""),
        ("quality", "num"),
        ("vs_best", "num"),
        ("p50_p95", "num"),
        ("cost_per_1k", "num"),
        ("build", "num"),
        ("memory", "num"),
        ("trained_parameters", "num"),
        ("owns", ""),
    ]
    cells = "".join(f'<th scope="col" class="{kind}">{text(words(key))}</th>' for key, kind in head)
    lows = [row.ci_low for row in result.rows if row.ok and row.ci_low is not None]
    highs = [row.ci_high for row in result.rows if row.ok and row.ci_high is not None]
    scale = (min(lows, default=0.0), max(highs, default=1.0))
    body = "".join(
        _measured(row, result, scale, words) if row.ok else _unmeasured(row, len(head), words) for row in result.rows
    )
    name = text(words("ladder_tiers"))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}"><table class="rungs"><thead>'
        f'<tr>{cells}</tr></thead><tbody>{body}</tbody></table></div><p class="lead">{text(words("letters"))}</p>'
    )


def _name(row: Row, mark: str, words: Words) -> str:
    solver = f"<small>{text(row.solver)}</small>" if row.solver else ""
    return f'<td><span class="order">{row.tier}</span> <b>{text(figures.short_tier(row, words))}</b>{mark}{solver}</td>'


def _unmeasured(row: Row, columns: int, words: Words) -> str:
    pill = f'<span class="pill off">{text(words(row.status if row.status != "ok" else "failed"))}</span>'
    reason = text(row.reason or words("no_answers"))
    remedy = f"<small>{text(words('remedy', text=row.remedy))}</small>" if row.remedy else ""
    return f'<tr class="off">{_name(row, pill, words)}<td colspan="{columns - 1}">{reason}{remedy}</td></tr>'


def _measured(row: Row, result: LadderResult, scale: tuple[float, float], words: Words) -> str:
    chosen = row.name == result.recommended.name
    pill = f'<span class="pill chosen">{text(words("recommended"))}</span>' if chosen else ""
    if row.unmeasured:
        part = words("ok_partial", n=f"{row.examples:,}", all=f"{row.examples + row.unmeasured:,}")
        pill += f' <span class="pill off">{text(part)}</span>'
    latency = _NO
    if row.latency_ms_p50 is not None and row.latency_ms_p95 is not None:
        latency = f"{figures.milliseconds(row.latency_ms_p50)} / {figures.milliseconds(row.latency_ms_p95)}"
    cells = (
        f"{text(figures.score(row))}{_strip(row, scale)}<small>{figures.span(row)}</small>",
        _beside(row, result, words),
        latency,
        text(figures.cost(row, result.currency, words)),
        _NO if row.build_seconds is None else text(figures.seconds(row.build_seconds, words)),
        _NO if row.peak_memory_mib is None else figures.memory(row.peak_memory_mib),
        _NO if row.trained_parameters is None else figures.count(row.trained_parameters),
    )
    numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
    kind = ' class="chosen"' if chosen else ""
    return f'<tr{kind}>{_name(row, pill, words)}{numbers}<td class="hands">{_hands(row, words)}</td></tr>'


def _strip(row: Row, scale: tuple[float, float]) -> str:
    """The interval on a line that all rows share."""
    if row.score is None or row.ci_low is None or row.ci_high is None or scale[1] <= scale[0]:
        return ""

    def at(value: float) -> float:
        return 100 * max(0.0, min(1.0, (value - scale[0]) / (scale[1] - scale[0])))

    left, right = at(row.ci_low), at(row.ci_high)
    return (
        f'<span class="strip" aria-hidden="true"><i style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<u style="left:{at(row.score):.1f}%"></u></span>'
    )


def _beside(row: Row, result: LadderResult, words: Words) -> str:
    gap = row.vs_best
    if gap is None:
        return text(words("is_best")) if any(one.vs_best for one in result.rows) else _NO
    span = f"{points(gap.low)} … {points(gap.high)}"
    return f"{points(gap.difference)}<small>{span}</small><small>{text(p_value(gap.p))}</small>"


def _hands(row: Row, words: Words) -> str:
    shown = []
    for part in PARTS:
        holding = row.owns.get(part)
        if holding is None:
            continue
        letter = part[0]
        mark = {"own": letter.upper(), "borrowed": letter, "called": f"({letter})"}.get(holding.state, "·")
        title = f"{words(f'part_{part}')}: {words(f'state_{holding.state}')}"
        shown.append(f'<span class="{holding.state}" title="{text(title)}">{mark}</span>')
    return "".join(shown) or _NO


def quality(result: LadderResult, words: Words) -> str:
    """The chart of scores with intervals against cost."""
    rows = [row for row in result.rows if row.ok and row.ci_low is not None and row.ci_high is not None]
    if not rows:
        return ""
    drawn = [
        charts.Point(
            label=_label(row, words),
            y=row.score or 0.0,
            low=row.ci_low or 0.0,
            high=row.ci_high or 0.0,
            x=row.cost_per_1k,
            strong=row.name == result.recommended.name,
        )
        for row in rows
    ]
    costs = [row.cost_per_1k for row in rows if row.cost_per_1k is not None]
    best = _best(result)
    band = (best.ci_low, best.ci_high) if best and best.ci_low is not None and best.ci_high is not None else None
    metric = words.name(result.metric)
    captions = charts.QualityWords(
        alt=f"{words('ladder_quality')}: "
        + "; ".join(f"{_label(row, words)} {figures.score(row)} ({figures.span(row)})" for row in rows),
        y=words("percent_of", metric=metric),
        x=words("axis_cost_log" if charts.is_log(costs) else "axis_cost", currency=result.currency),
        unknown=words("axis_unknown" if costs else "axis_by_tier"),
    )
    drawing = charts.quality(drawn, band, captions)
    return figure(drawing, words("about_quality", level=f"{100 * result.level:g}"))


def _best(result: LadderResult) -> Row | None:
    """The row that the others were compared with."""
    name = next((row.vs_best.best for row in result.rows if row.vs_best), None)
    return result.row(name) if name else None


def _label(row: Row, words: Words) -> str:
    return f"{row.tier} {figures.short_tier(row, words)}"


def time(result: LadderResult, words: Words) -> str:
    """Latency and build time, side by side."""
    timed = [row for row in result.rows if row.ok]
    latency = [
        _span(result, row, words, row.latency_ms_p50, row.latency_ms_p95, figures.milliseconds)
        for row in timed
        if row.latency_ms_p50 is not None
    ]
    build = [
        _span(result, row, words, row.build_seconds, None, lambda value: figures.seconds(value, words))
        for row in timed
        if row.build_seconds is not None
    ]
    drawn = "".join(_chart(key, spans, words) for key, spans in (("latency", latency), ("build", build)) if spans)
    return f'<div class="pairs">{drawn}</div>' if drawn else ""


def _span(
    result: LadderResult,
    row: Row,
    words: Words,
    value: float | None,
    second: float | None,
    show: Callable[[float], str],
) -> charts.Span:
    shown = " / ".join(show(one) for one in (value, second) if one is not None)
    return charts.Span(_label(row, words), value or 0.0, shown, second, row.name == result.recommended.name)


def _chart(key: str, spans: list[charts.Span], words: Words) -> str:
    name = words(f"chart_{key}")
    values = [one for span in spans for one in (span.value, span.second) if one is not None]
    head = name + (words("log_scale") if charts.is_log(values) else "")
    alt = f"{name}: " + "; ".join(f"{span.label} {span.shown}" for span in spans)
    return f"<div><h3>{text(head)}</h3>{figure(charts.ranges(spans, alt), words(f'about_{key}'))}</div>"


def owns(result: LadderResult, words: Words) -> str:
    """Who owns what of every rung, from whom it comes, and under what licence."""
    rows = [row for row in result.rows if row.owns]
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{text(words(f"part_{part}"))}</th>' for part in PARTS)
    body = "".join(
        f'<tr><th scope="row">{text(_label(row, words))}</th>'
        f"{''.join(_holding(row.owns.get(part), words) for part in PARTS)}</tr>"
        for row in rows
    )
    name = text(words("ladder_owns"))
    return (
        f'<p class="lead">{text(words("about_owns"))}</p><div class="scroll" tabindex="0" role="group" '
        f'aria-label="{name}"><table class="own"><thead><tr><td class="none"></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _holding(holding: Holding | None, words: Words) -> str:
    if holding is None:
        return f'<td class="none">{_NO}</td>'
    notes = "".join(f"<small>{text(line)}</small>" for line in _lines(holding, words))
    return f'<td class="{holding.state}"><b>{text(words(f"state_{holding.state}"))}</b>{notes}</td>'


def _lines(holding: Holding, words: Words) -> Iterator[str]:
    if holding.origin:
        yield words("from", ref=holding.origin)
    if holding.licence:
        yield holding.licence
    elif holding.origin or holding.state in ("borrowed", "called"):
        yield words("licence_unknown")
    yield from holding.notes
