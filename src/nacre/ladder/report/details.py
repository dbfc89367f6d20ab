"""The sections behind the answer: where tiers differ, choices, data, how it was measured, lineage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nacre.ladder.report import figures
from nacre.ladder.result import Between, Example, LadderResult, Row
from nacre.ladder.words import Words, money, p_value
from nacre.lifecycle.evaluate.markup import Cell, Html, folded, percent, table, text

_MOST_CHOICES = 60  # rows of one table of choices; the rest is counted


def between(result: LadderResult, words: Words) -> str:
    """What each thicker tier mends and spoils: counts for all pairs, examples for neighbours and the pair that
    decides."""
    if not result.between:
        return ""
    matrix = _matrix(result, words)
    shown = [pair for pair in result.between if _is_told(pair, result) and (pair.fixes or pair.breaks)]
    shown.sort(key=lambda pair: not _decides(pair, result))
    blocks = "".join(_told(pair, result, words, opened=index == 0) for index, pair in enumerate(shown))
    return f'<p class="lead">{text(words("about_between"))}</p>{matrix}{blocks}'


def _matrix(result: LadderResult, words: Words) -> str:
    names = list(dict.fromkeys(name for pair in result.between for name in (pair.thinner, pair.thicker)))
    pairs = {(pair.thinner, pair.thicker): pair for pair in result.between}
    head = "".join(f'<th scope="col">{text(_label(result, name, words))}</th>' for name in names[1:])
    body = ""
    for thinner in names[:-1]:
        cells = "".join(_cell(pairs.get((thinner, thicker)), words) for thicker in names[1:])
        body += f'<tr><th scope="row">{text(_label(result, thinner, words))}</th>{cells}</tr>'
    name = text(words("ladder_between"))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}"><table class="matrix"><thead><tr>'
        f'<th scope="col">{text(words("thinner_thicker"))}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(pair: Between | None, words: Words) -> str:
    if pair is None:
        return "<td></td>"
    mends, spoils = words("mends", n=f"{pair.fixed:,}"), words("spoils", n=f"{pair.broken:,}")
    return (
        f'<td class="cell" style="--w:{100 * pair.same:.0f}%"><span class="up">{text(mends)}</span> · '
        f'<span class="down">{text(spoils)}</span>'
        f"<small>{text(words('same', share=percent(pair.same, 0)))}</small></td>"
    )


def _decides(pair: Between, result: LadderResult) -> bool:
    """The recommended tier beside the best."""
    best = next((row.vs_best.best for row in result.rows if row.vs_best), None)
    return {pair.thinner, pair.thicker} == {result.recommended.name, best}


def _is_told(pair: Between, result: LadderResult) -> bool:
    """Neighbours on the ladder, and the pair that decides."""
    names = [row.name for row in result.rows if row.ok]
    return _decides(pair, result) or (pair.thinner, pair.thicker) in pairwise(names)


def _told(pair: Between, result: LadderResult, words: Words, *, opened: bool) -> str:
    thinner, thicker = (_label(result, name, words) for name in (pair.thinner, pair.thicker))
    head = words("pair", thinner=thinner, thicker=thicker, fixed=f"{pair.fixed:,}", broken=f"{pair.broken:,}")
    parts = ""
    for key, kind, examples, total in (
        ("mends", "", pair.fixes, pair.fixed),
        ("spoils", " broken", pair.breaks, pair.broken),
    ):
        if examples:
            title = words(key, n=f"{total:,}")
            if len(examples) < total:
                title += " · " + words("shown_of", shown=len(examples), all=f"{total:,}")
            items = "".join(_example(one, thinner, thicker, words) for one in examples)
            parts += f'<h3 class="told-head">{text(title)}</h3><ul class="told{kind}">{items}</ul>'
    return f"<details{' open' if opened else ''}><summary>{text(head)}</summary>{parts}</details>"


def _example(one: Example, thinner: str, thicker: str, words: Words) -> str:
    facts = ((words("truth"), one.truth), (thinner, one.thinner), (thicker, one.thicker))
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    return f"<li><p>{text(one.text)}</p><dl>{rows}</dl></li>"


def choices(result: LadderResult, found: Mapping[str, Any], words: Words) -> str:
    """What each solver chose between on validation rows, folded."""
    return "".join(folded(_label(result, name, words), _plain(value)) for name, value in found.items())


def _plain(value: Any) -> str:
    """A value of JSON as HTML: objects as facts, lists of objects as tables, the rest as it is."""
    if isinstance(value, Mapping):
        simple = {key: item for key, item in value.items() if not isinstance(item, Mapping | list)}
        nested = {key: item for key, item in value.items() if key not in simple}
        return _facts((str(key), _shown(item)) for key, item in simple.items()) + "".join(
            folded(str(key), _plain(item)) for key, item in nested.items()
        )
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        head = list(dict.fromkeys(str(key) for one in value for key in one))
        rows: list[tuple[Cell, ...]] = [tuple(_shown(one.get(key)) for key in head) for one in value[:_MOST_CHOICES]]
        more = f'<p class="lead">+{len(value) - _MOST_CHOICES:,}</p>' if len(value) > _MOST_CHOICES else ""
        return table(head, rows) + more
    return f"<pre>{text(_shown(value))}</pre>"


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, list | Mapping) and not value):
        return "–"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "; ".join(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def data(result: LadderResult, words: Words) -> str:
    """Rows of each split, and what was found between and within them."""
    facts = [(words.name(key), _counted(value)) for key, value in result.data.items()]
    return f'<p class="lead">{text(words("about_data"))}</p>{_facts(facts)}' if facts else ""


def _counted(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _shown(value)


def method(result: LadderResult, words: Words) -> str:
    """Size of the test, intervals, comparisons, order, seeds, prices, machine, what was spent."""
    level = f"{100 * result.level:g}"
    compared = sum(row.vs_best is not None for row in result.rows)
    facts = [
        (words("test_rows"), f"{result.test_examples:,}"),
        (words("metric"), words.name(result.metric)),
        (words("intervals"), words("about_intervals", level=level)),
        (words("comparisons"), words("about_comparisons", n=compared)),
        (words("order"), words("about_order")),
        (words("seeds"), _seeds(result, words)),
        (words("prices"), "; ".join(_prices(result, words))),
        (words("spent"), "; ".join(_spent(result, words))),
        (words("machine"), _machine(result.machine)),
        (words("created"), result.created),
    ]
    rows = [cells for row in result.rows if row.ok for cells in _remarks(row, result, words)]
    return _facts((name, value) for name, value in facts if value) + (
        table([words("tier"), "", ""], rows, numeric=(2,)) if rows else ""
    )


def _seeds(result: LadderResult, words: Words) -> str:
    many = [row for row in result.rows if len(row.seeds) > 1]
    return "; ".join(
        f"{figures.short_tier(row, words)}: {', '.join(percent(one) for one in row.seeds)}" for row in many
    )


def _prices(result: LadderResult, words: Words) -> Iterator[str]:
    prices, currency = result.prices, result.currency
    given = {
        "price_input": prices.input_per_million,
        "price_output": prices.output_per_million,
        "price_embedding": prices.embedding_per_million,
        "price_hour": prices.machine_hour,
    }
    known = {key: value for key, value in given.items() if value is not None}
    yield from (words(key, value=money(value, currency)) for key, value in known.items())
    if not known:
        yield words("no_prices")
    yield words("prices_edit")


def _spent(result: LadderResult, words: Words) -> Iterator[str]:
    spent = result.spent
    if spent.get("money"):
        yield words("spent_money", value=money(float(spent["money"]), result.currency))
    for key in ("requests", "tokens", "unpriced", "uncounted"):
        if spent.get(key):
            yield words(f"spent_{key}", n=f"{spent[key]:,}")


def _machine(machine: Mapping[str, Any]) -> str:
    return "; ".join(f"{key} {_counted(value)}" for key, value in machine.items() if value is not None)


def _remarks(row: Row, result: LadderResult, words: Words) -> Iterator[tuple[Cell, ...]]:
    """What a reader must know of one tier: who answered, what could not be used, what was left out."""
    name = _label(result, row.name, words)
    if row.served_by:
        yield name, words("answered_by"), ", ".join(row.served_by)
    for problem, n in row.problems.items():
        yield name, words("problems"), f"{words.name(problem)}: {n:,}"
    if row.truncated:
        yield name, words("truncated_rows"), f"{row.truncated:,}"
    if row.unmeasured:
        yield name, words("unmeasured_rows"), f"{row.unmeasured:,}"
    if row.vs_best is not None:
        yield name, words("vs_best"), words("p_holm", p=p_value(row.vs_best.p_holm))


def lineage(result: LadderResult, words: Words) -> str:
    """The ref of every rung, to be followed with `nacre trace`."""
    rows: Sequence[tuple[Cell, ...]] = [
        (_label(result, row.name, words), Html(f"<code>nacre trace {text(row.lineage)}</code>"))
        for row in result.rows
        if row.lineage
    ]
    return table([words("tier"), words("ladder_lineage")], rows) if rows else ""


def _facts(facts: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _label(result: LadderResult, name: str, words: Words) -> str:
    row = result.row(name)
    return name if row is None else f"{row.tier} {figures.short_tier(row, words)}"
