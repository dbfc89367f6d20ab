"""The ladder for a terminal, as plain data: a head, rows of cells, and lines below; who prints them aligns them."""

from __future__ import annotations

from dataclasses import dataclass

from nacre.ladder.report import figures
from nacre.ladder.result import LadderResult, Row
from nacre.ladder.words import Words

_NO = "–"


@dataclass(frozen=True)
class Text:
    """`head` and `rows` are the table (the last column may be cut), `lines` what stands below it, in order."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]


def as_text(result: LadderResult) -> Text:
    """Every tier as a row of cells, then the recommendation and what would change it."""
    words = Words(result.language)
    metric = words.name(result.metric)
    columns = ("tier", "", "p50_p95", "cost_per_1k", "build", "trained_parameters", "owns", "status", "solver")
    head = tuple(words(key) if key else metric for key in columns)
    recommended = result.recommended
    colon = "：" if words.language == "zh" else ": "
    lines = [recommended.why, *(f"- {one}" for one in recommended.would_change)]
    if recommended.would_change:
        lines.insert(1, words("ladder_changes") + colon.rstrip())
    if any(row.owns for row in result.rows):
        lines.append(f"{words('owns')}{colon}{words('letters')}")
    return Text(head, tuple(_cells(row, result, words) for row in result.rows), tuple(lines))


def _cells(row: Row, result: LadderResult, words: Words) -> tuple[str, ...]:
    mark = " *" if row.name == result.recommended.name else ""
    name = f"{row.tier} {figures.short_tier(row, words)}{mark}"
    if not row.ok:
        return (name, *(_NO,) * 6, words(row.status), row.reason or words("no_answers"))
    span = figures.span(row)
    latency = _NO
    if row.latency_ms_p50 is not None and row.latency_ms_p95 is not None:
        latency = f"{figures.milliseconds(row.latency_ms_p50)} / {figures.milliseconds(row.latency_ms_p95)}"
    all_rows = row.examples + row.unmeasured
    partly = words("ok_partial", n=f"{row.examples:,}", all=f"{all_rows:,}") if row.unmeasured else words("ok")
    return (
        name,
        figures.score(row) + (f" ({span})" if span else ""),
        latency,
        figures.cost(row, result.currency, words),
        _NO if row.build_seconds is None else figures.seconds(row.build_seconds, words),
        _NO if row.trained_parameters is None else figures.count(row.trained_parameters),
        figures.owns_letters(row),
        partly,
        row.solver,
    )
