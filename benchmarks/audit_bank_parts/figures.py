"""Rates with their uncertainty, by pair and by model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from audit_bank_parts.measure import Row

POSITIVE = ("IDENTICAL", "DERIVED", "SHARED_INIT")  # verdicts that claim something of the weights
RESAMPLES = 2000


@dataclass(frozen=True)
class Rate:
    """`hits` of `n`. `low`, `high`: Clopper-Pearson, 95 %, as if pairs were independent. `model_low`, `model_high`:
    bootstrap over models, 95 %; `models` is how many there are."""

    hits: int
    n: int
    low: float
    high: float
    model_low: float
    model_high: float
    models: int

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else math.nan


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson 1934)."""
    if n == 0:
        return 0.0, 1.0
    side = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(side, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - side, hits + 1, n - hits))
    return low, high


def rate(rows: Sequence[Row], is_hit: Callable[[Row], bool], seed: int = 0) -> Rate:
    """The share of rows that are hits. A pair is drawn as often as both of its models' families are."""
    hits = np.array([is_hit(row) for row in rows], dtype=float)
    ends = [families(row) for row in rows]
    names = sorted({name for end in ends for name in end})
    low, high = clopper_pearson(int(hits.sum()), len(rows))
    if not rows:
        return Rate(0, 0, low, high, 0.0, 1.0, 0)
    place = {name: index for index, name in enumerate(names)}
    draws = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), RESAMPLES)
    weights = np.ones((RESAMPLES, len(rows)))
    for column, end in enumerate(ends):
        for name in end:
            weights[:, column] *= draws[:, place[name]]
    total = weights.sum(1)
    shares = (weights @ hits)[total > 0] / total[total > 0]
    model_low, model_high = (float(one) for one in np.quantile(shares, [0.025, 0.975]))
    return Rate(int(hits.sum()), len(rows), low, high, model_low, model_high, len(names))


def families(row: Row) -> tuple[str, ...]:
    """The models from scratch that a pair rests on: two for strangers, one where all stems from one."""
    ends = (row["pair"]["source"], row["pair"]["reference"])
    return tuple(sorted({end.partition("+")[0].partition("=")[0] for end in ends}))


def disjoint_bound(models: int) -> float:
    """Upper bound (95 %, one-sided) of a rate with no hit, from pairs without a common model: what is left when
    nothing is assumed of pairs that share one."""
    trials = models // 2
    return 1.0 if trials == 0 else float(1 - 0.05 ** (1 / trials))


def threshold(null: Sequence[float], level: float) -> float | None:
    """The value above which at most `level` of the null lies; None where the null is too small to say."""
    allowed = math.floor(level * (len(null) + 1)) - 1
    if allowed < 0:
        return None
    return sorted(null, reverse=True)[allowed]


def at_level(row: Row, alpha: float) -> Row:
    """The row as the policy decides at `alpha`, from one measured at a looser level: a less sure claim is none.

    Exact as long as no control voided the row; those stay as they are.
    """
    p = row["p_value"]
    if row["verdict"] not in (*POSITIVE, "INCONCLUSIVE") or p is None or p <= alpha:
        return row
    return {**row, "verdict": "NO_EVIDENCE", "kind": None, "share": None, "rank": None}


def right(row: Row) -> bool:
    """Whether the verdict is one of the expected ones."""
    return row["verdict"] in row["pair"]["expected"]


def kind_right(row: Row) -> bool:
    """Whether the verdict and, for DERIVED, the kind are right."""
    return right(row) and (row["verdict"] != "DERIVED" or row["kind"] in row["pair"]["kinds"])


def counts(row: Row) -> bool:
    """Whether the attack left a model worth having; models without an attack count."""
    return bool(row["counts"])
