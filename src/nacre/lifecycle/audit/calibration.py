"""What the bank of known pairs says about a statistic: its null values, and which derivations were caught.

The table is made by `benchmarks/audit_bank.py` and shipped with the hashes of what it was made from. Its form:
`{"made_from": {name: sha256}, "nulls": {test: [value, ...]}, "power": [{"kind", "tpr", "low", "n"}, ...]}`.
`nulls` are `Evidence.value` of pairs known to be independent; `low` is the lower bound of `tpr` (95 %).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from nacre.errors import DataError
from nacre.lifecycle.audit.said import say, term
from nacre.lifecycle.audit.verdict import LEAST_P, Tier

TABLE = Path(__file__).with_name("calibration.json")
# The largest corrected p at which weights are called related: about the least that a rank in the shipped bank can reach
# once it is corrected for the tests. docs/audit/bank.md says how it was chosen.
LEVEL = 0.002
_CAUGHT = 0.9  # lower bound of the share caught from which a derivation counts as one that would have been


@dataclass(frozen=True)
class Power:
    """How often a kind of derivation was caught in the bank: `tpr` of `n` pairs, at least `low` (95 %)."""

    kind: str
    tpr: float
    low: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """The table. `nulls` are sorted, rising."""

    nulls: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    power: tuple[Power, ...] = ()
    made_from: Mapping[str, str] = field(default_factory=dict)

    def p_value(self, test: str, value: float) -> tuple[float | None, Tier]:
        """p of a statistic among the bank's independent pairs, (1 + #{null >= value}) / (n + 1); None without any."""
        null = self.nulls.get(test, ())
        if not null:
            return None, "heuristic"
        return (1 + len(null) - bisect_left(null, value)) / (len(null) + 1), "calibrated"

    def tail(self, test: str, value: float) -> float | None:
        """p of a statistic above all of the bank's independent pairs, read off an exponential tail through their
        highest tenth (which falls more slowly than that of sums of ranks does); never below 1e-6. None within the bank.
        """
        null = self.nulls.get(test, ())
        count = len(null) // 10
        if count < 10 or value <= null[-1]:
            return None
        start, excess = null[-count - 1], sum(null[-count:]) / count - null[-count - 1]
        return max(LEAST_P, count / len(null) * math.exp(-(value - start) / excess))

    def caught(self) -> str | None:
        """The derivations that would have been caught, in words; None where the bank says nothing."""
        named = [one for one in self.power if one.low >= _CAUGHT]
        if not named:
            return None
        parts = [say("{kind} ({tpr:.1%} / {n})", kind=term(one.kind), tpr=one.tpr, n=one.n) for one in named]
        return say("would have been caught, of so many in the bank: {parts}", parts=parts)


def parse(table: Mapping[str, object]) -> Calibration:
    """A table as it is stored. Raises DataError where it has another form."""
    try:
        nulls = {str(test): tuple(sorted(map(float, values))) for test, values in dict(table["nulls"]).items()}  # type: ignore[call-overload]
        power = tuple(Power(**one) for one in table.get("power", ()))  # type: ignore[attr-defined]
        made_from = {str(k): str(v) for k, v in dict(table.get("made_from", {})).items()}  # type: ignore[call-overload]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the calibration table has another form: {error}", remedy="rebuild it with benchmarks/audit_bank.py"
        ) from error
    return Calibration(nulls, power, made_from)


@cache
def shipped() -> Calibration:
    """The table that comes with this version; empty where there is none (then no statistic is calibrated)."""
    return load(TABLE) if TABLE.is_file() else Calibration()


def load(path: Path) -> Calibration:
    """The table in a file. Raises DataError where it is no JSON or has another form."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is no table of a calibration: {error}", remedy="rebuild it") from error
    return parse(table)
