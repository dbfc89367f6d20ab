"""What `nacre audit` prints: the verdict, a line for each stage, the evidence, and what was not tested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nacre.cli.terminal import coloured, duration, number, size, table
from nacre.lifecycle.audit.report.content import control, cost_rows, name_of_test, not_tested, notes
from nacre.lifecycle.audit.said import spoken
from nacre.lifecycle.audit.sentences import CLAIMS, chance, deciding, names, summary
from nacre.lifecycle.audit.verdict import Pair, StageVerdict
from nacre.lifecycle.audit.words import Words

if TYPE_CHECKING:
    from nacre.lifecycle.audit.grouping import Grouped

_COLOURS = {
    "IDENTICAL": "red", "DERIVED": "red", "SHARED_INIT": "yellow", "INCONCLUSIVE": "yellow", "NO_EVIDENCE": "green",
    "SAME_DESIGN": "cyan", "UNTESTABLE": "dim",
}  # fmt: skip


def lines(pairs: Sequence[Pair], words: Words) -> Iterator[str]:
    """The whole answer, a line at a time; of several references a table first, then the strongest in full."""
    if len(pairs) > 1:
        yield coloured(words("ranking"), "bold")
        rows = [
            [pair.verdict, _chance(deciding(pair), words), _p_of(deciding(pair)), names(pair)[1], pair.reference]
            for pair in pairs
        ]
        corrected = words("corrected_p", n=f"{len(pairs):,}")
        yield table(rows, (words("verdict"), words("chance"), corrected, words("reference"), ""))
        yield ""
    yield from _pair(pairs[0], words)


def _pair(pair: Pair, words: Words) -> Iterator[str]:
    yield f"{coloured(pair.verdict, _COLOURS[pair.verdict])}  {spoken(summary(pair), words.language)}"
    yield words.labelled(words("means"), words(f"means_{pair.verdict}"))
    yield from _beyond_the_pair(pair, words)
    yield ""
    rows = [
        [words(name), one.verdict, _chance(one, words), spoken(one.text, words.language)]
        for name, one in pair.stages.items()
    ]
    yield table(rows, (words("stage"), words("verdict"), words("chance"), words("sentence")))
    evidence = [
        [
            words(name),
            spoken(name_of_test(each.test), words.language),
            number(each.value),
            _p(each.p_value),
            words(f"tier_{each.tier}"),
            spoken(each.text, words.language),
        ]
        for name, one in pair.stages.items()
        for each in one.evidence
        if each.value is not None
    ]
    if evidence:
        yield ""
        head = (words("stage"), words("test"), words("value"), "p", words("known"), words("what"))
        yield table(evidence, head)
    yield ""
    yield coloured(words("untested"), "bold")
    ran = bool(pair.control.get("ran"))
    yield from (f"- {spoken(one, words.language)}" for one in (*not_tested(pair), *(() if ran else (control(pair),))))
    noted = [*notes(pair), *((control(pair),) if ran else ())]
    if noted:
        yield ""
        yield coloured(words("notes"), "bold")
        yield from (f"- {spoken(one, words.language)}" for one in noted)
    yield ""
    shown = cost_rows(pair, words, duration, size)
    if shown:
        yield words.clauses(words.labelled(name, value) for name, value in shown)


def _beyond_the_pair(pair: Pair, words: Words) -> Iterator[str]:
    """What several references make up together, and who was first, where that was looked into."""
    detail = pair.stages["weights"].detail if "weights" in pair.stages else {}
    for part in ("mixture", "direction"):
        told = detail.get(part)
        if told:
            yield spoken(told["words"], words.language)


def group_lines(grouped: Grouped) -> Iterator[str]:
    """A line for each design, and what was left out with its reason."""
    rows = [
        [str(len(one.named) + len(one.declared)), " = ".join([one.nearest.family, *one.nearest.also]),
         str(one.nearest.distance), ", ".join([*one.named, *(f"{name} (config)" for name in one.declared)])]
        for one in grouped.groups
    ]  # fmt: skip
    yield table(rows, ("models", "nearest family", "distance", "members"))
    for name, why in grouped.left_out.items():
        yield f"left out: {name}: {why}"


def _chance(stage: StageVerdict | None, words: Words) -> str:
    if stage is None or stage.p_value is None or stage.verdict not in CLAIMS:
        return ""
    tier = words(f"tier_{stage.tier}") if stage.tier else ""
    return words("chance_by_tier", chance=chance(stage.p_value, words.language), tier=tier)


def _p_of(stage: StageVerdict | None) -> str:
    return "-" if stage is None or stage.p_value is None else _p(stage.p_value)


def _p(p: float | None) -> str:
    return "" if p is None else "< 1e-06" if p < 1e-6 else f"{p:.2g}"
