"""Sentences that a reader who knows nothing of the tests can cite. They never say more than the stages do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from nacre.lifecycle.audit import calibration
from nacre.lifecycle.audit.said import Said, clauses, paragraph, say, spoken, term
from nacre.lifecycle.audit.verdict import LEAST_P, Evidence, Pair, StageVerdict

CLAIMS = ("IDENTICAL", "DERIVED", "SHARED_INIT")  # verdicts that have a chance of error: that nothing is shared
_COMMON = 0.1  # chances above this are given as they are, not as "1 in N"

# The verdict on a pair, by the stage that decided it; {a} the subject, {b} the reference.
PAIR: Mapping[str, str] = {
    "weights IDENTICAL": "The weights of {a} are those of {b}: every tensor is the same, value for value.",
    "weights DERIVED": "The weights of {a} derive from {b}: {kind}; {first}.",
    "weights DERIVED backwards": "The weights of {a} and {b} are of one descent; {first}.",
    "weights SHARED_INIT": (
        "{a} and {b} began from the same initial weights and were trained apart: neither derives from the other."
    ),
    "weights NO_EVIDENCE": (
        "No sign was found that the weights of {a} derive from {b}. This is no proof of independence: {power}."
    ),
    "weights INCONCLUSIVE": "Whether the weights of {a} derive from {b} could not be decided: {reason}.",
    "data IDENTICAL": "{a} and {b} hold the same rows of text.",
    "data DERIVED": (
        "{a} and {b} share more rows than chance explains: {share:.1%} of the rows of {a} stand in {b}. Both may have "
        "taken them from a third set."
    ),
    "data trained-on DERIVED": "{a} was trained on {b}, or on rows that {b} was made of.",
    "data trained-on NO_EVIDENCE": (
        "No exact test shows that {a} was trained on {b}. This is no proof that it was not: {power}."
    ),
    "data NO_EVIDENCE": "No row of {a} was found in {b}. This is no proof of independence: {power}.",
    "data INCONCLUSIVE": "Whether the rows of {a} come from {b} could not be decided: {reason}.",
    "SAME_DESIGN": (
        "{a} and {b} share a design, which public recipes explain. Nothing is said about weights: they could not be "
        "compared."
    ),
    "INCONCLUSIVE": "Nothing could be decided about {a} and {b}: neither weights nor data could be compared.",
    "UNTESTABLE": "{a} and {b} could not be compared at any stage: {reason}.",
}  # fmt: skip
_OF_FILES = ("kernel", "tokenizer", "weights", "data")


def summary(pair: Pair) -> Said:
    """The verdict on a pair, the chance of error and how it is known, and what was not tested."""
    stage = deciding(pair)
    key = f"{stage.stage} {pair.verdict}" if stage else pair.verdict
    a, b = names(pair)
    model = stage.detail.get("model") if stage and stage.stage == "data" else None  # beside a data set
    if model is not None:
        key, (a, b) = f"data trained-on {pair.verdict}", (a, b) if model == "subject" else (b, a)
    if key == "weights DERIVED" and stage and stage.detail.get("direction", {}).get("first") == "subject":
        key = "weights DERIVED backwards"
    parts = [
        say(
            PAIR[key if key in PAIR else pair.verdict],
            a=a,
            b=b,
            kind=term(stage.kind or pair.verdict) if stage else "",
            power=(stage.power if stage else None) or "what would have been caught is not known",
            reason=(stage.reason or stage.text) if stage else _all_reasons(pair),
            share=(stage.share if stage else None) or 0.0,
            first=_first(stage, a, b) if stage else "",
        )
    ]
    if stage and stage.p_value is not None and pair.verdict in ("DERIVED", "SHARED_INIT"):
        template = "The chance of such agreement between unrelated models is {chance} ({known})."
        if model is not None:
            template = "The chance of such a finding without that training is {chance} ({known})."
        parts.append(say(template, chance=odds(stage.p_value), known=basis(stage)))
    if pair.verdict == "DERIVED" and stage and stage.stage == "weights":
        parts.append(say("Sharing a design alone would say nothing."))
    left = [term(one) for one in _OF_FILES if _is_open(pair, one)]
    if left and pair.verdict != "UNTESTABLE":
        parts.append(say("Not tested: {stages}.", stages=left))
    return paragraph(parts)


def summarise(pair: Pair, language: str = "en") -> str:
    """`summary` in a language; what has no translation stays in English."""
    return spoken(summary(pair), language)


def _first(stage: StageVerdict, subject: str, reference: str) -> Said:
    """What is told of who was first, with the names of the two in place of their sides."""
    told = stage.detail.get("direction") or {}
    words = told.get("words")
    if not isinstance(words, Said):
        return say("the files do not say who was first")
    first, other = (reference, subject) if told["first"] == "reference" else (subject, reference)
    named = {name: one for name, one in {"first": first, "other": other}.items() if name in words.values}
    return Said(words.template.format(**named), words.template, named)


def _all_reasons(pair: Pair) -> Said:
    """Why nothing could be tested, each reason once."""
    return clauses(dict.fromkeys(one.reason or one.text for one in pair.stages.values()))


def _is_open(pair: Pair, stage: str) -> bool:
    return stage not in pair.stages or pair.stages[stage].verdict == "UNTESTABLE"


def deciding(pair: Pair) -> StageVerdict | None:
    """The stage that the verdict on the pair is taken from; None where it stands on no single one."""
    for name in ("weights", "data"):
        stage = pair.stages.get(name)
        if stage is not None and stage.verdict == pair.verdict and f"{name} {pair.verdict}" in PAIR:
            return stage
    return None


def names(pair: Pair) -> tuple[str, str]:
    """Short names of the two sides: the end of a path, as much of it as tells them apart."""
    ours, theirs = PurePath(pair.subject).parts, PurePath(pair.reference).parts
    if pair.subject == pair.reference:
        return ours[-1], theirs[-1]
    for length in range(1, max(len(ours), len(theirs)) + 1):
        short = "/".join(ours[-length:]), "/".join(theirs[-length:])
        if short[0] != short[1]:
            return short[0].removeprefix("//"), short[1].removeprefix("//")
    return pair.subject, pair.reference


def odds(p: float) -> Said:
    """A p-value as a reader takes it in: `at most 1 in 3,161`, `below 1 in a million`."""
    if p <= LEAST_P:
        return say("below 1 in a million")
    return say("at most {p:.2g}", p=p) if p > _COMMON else say("at most 1 in {n:,}", n=int(1 / p + 1e-9))


def chance(p: float, language: str = "en") -> str:
    """`odds` in a language."""
    return spoken(odds(p), language)


def basis(stage: StageVerdict) -> Said:
    """How the chance of error is known."""
    best = deciding_evidence(stage)
    if stage.tier == "exact" and best is not None and best.assumption:
        return say("{where}: {reason}", where=term("exact"), reason=best.assumption)
    if stage.tier == "calibrated" and stage.stage == "weights" and best is not None:
        count = len(calibration.shipped().nulls.get(best.test, ()))
        if count:
            return say("calibrated on {n:,} pairs known to be independent", n=count)
    return term(stage.tier or "heuristic")


def deciding_evidence(stage: StageVerdict) -> Evidence | None:
    """The evidence with the smallest p-value among those of the stage's tier."""
    able = [one for one in stage.evidence if one.p_value is not None and one.tier == stage.tier]
    return min(able, key=lambda one: one.p_value or 0.0, default=None)
