"""Probe, evidence, verdict: what a test returns, what a stage concludes, what `nacre audit` returns.

A verdict is one of seven words. It is never `independent`: NO_EVIDENCE states the weakest derivation that would have
been caught. What a stage could not test is said, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nacre.lifecycle.audit.said import say
from nacre.metrics.multiple import holm as holm

Word = Literal[
    "IDENTICAL", "DERIVED", "SHARED_INIT", "SAME_DESIGN", "NO_EVIDENCE", "INCONCLUSIVE", "UNTESTABLE"
]  # fmt: skip
WORDS: tuple[Word, ...] = (
    "IDENTICAL", "DERIVED", "SHARED_INIT", "SAME_DESIGN", "NO_EVIDENCE", "INCONCLUSIVE", "UNTESTABLE",
)  # fmt: skip

# How a p-value is known, best first.
#   exact: a distribution under stated assumptions. calibrated: rank among known-independent pairs of the bank.
#   extrapolated: off the tail of the bank, capped at 1e-6; decides only where many references leave no rank that could.
#   heuristic: reported, decides nothing.
Tier = Literal["exact", "calibrated", "extrapolated", "heuristic"]

KINDS = (
    "renamed", "fine-tuned", "lora", "quantized", "pruned", "merged", "noised", "depth-changed", "width-changed",
    "upcycled", "re-embedded", "vocabulary-extended", "trained-on",
)  # fmt: skip
STAGES = ("kernel", "tokenizer", "weights", "data", "service")
LEAST_P = 1e-6  # what an extrapolated p-value may claim at most


@dataclass(frozen=True)
class Evidence:
    """What one probe measured. `value` is its statistic, `p_value` the chance of one as large if nothing was shared.

    `assumption` is what an exact p-value stands on. `detail` is plain values for the report (per layer, say).
    """

    test: str
    value: float | None
    p_value: float | None = None
    tier: Tier = "heuristic"
    text: str = ""
    assumption: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageVerdict:
    """What one stage concludes. `kind` (one of KINDS) and `share` (0..1) belong to DERIVED.

    `text` is the verdict in a sentence, `reason` why it is UNTESTABLE or INCONCLUSIVE, `power` the weakest derivation
    that NO_EVIDENCE would have caught, `not_tested` what else was left open, `notes` what the tests took as given or
    found on their way (which tokens are shared, say): each a sentence, of `said.py` where it holds values.
    """

    stage: str
    verdict: Word
    text: str
    kind: str | None = None
    share: float | None = None
    p_value: float | None = None
    tier: Tier | None = None
    evidence: tuple[Evidence, ...] = ()
    not_tested: tuple[str, ...] = ()
    reason: str | None = None
    power: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def untestable(stage: str, reason: str) -> StageVerdict:
    """The verdict of a stage that lacks what it needs."""
    return StageVerdict(stage, "UNTESTABLE", say("could not be tested: {reason}", reason=reason), reason=reason)


@dataclass(frozen=True)
class Pair:
    """A subject beside one reference, all stages. `p_value` of the deciding stage is corrected for every reference.

    `control` is the same audit of the subject beside an unrelated model of the reference's shape; where it fires,
    the report is void. `rename_map`: the subject's tensor names -> the reference's. `digests` say of each side which
    bytes were looked at.
    """

    subject: str
    reference: str
    stages: Mapping[str, StageVerdict]
    verdict: Word
    summary: str
    rename_map: Mapping[str, str] = field(default_factory=dict)
    control: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is not finite is null."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def overall(stages: Mapping[str, StageVerdict]) -> Word:
    """The verdict on the pair: never more than its stages say. Weights decide, then data, alone where there is nothing
    else; a shared design or tokenizer alone is explained by public recipes."""
    weights = stages.get("weights")
    if weights is not None and weights.verdict not in ("UNTESTABLE", "NO_EVIDENCE"):
        return weights.verdict
    data = stages.get("data")
    if data is not None and data.verdict in ("IDENTICAL", "DERIVED"):
        return data.verdict
    if weights is not None and weights.verdict == "NO_EVIDENCE":
        return "NO_EVIDENCE"
    same = [one for name, one in stages.items() if name in ("kernel", "tokenizer") and one.verdict != "UNTESTABLE"]
    if not same:
        return "UNTESTABLE" if data is None else data.verdict
    return "SAME_DESIGN" if all(one.verdict in ("IDENTICAL", "SAME_DESIGN") for one in same) else "INCONCLUSIVE"


def conformal(value: float, null: Sequence[float]) -> float:
    """p of a statistic among those of known-independent pairs: (1 + #{null >= value}) / (n + 1) (Vovk et al. 2005)."""
    return (1 + sum(one >= value for one in null)) / (len(null) + 1)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
