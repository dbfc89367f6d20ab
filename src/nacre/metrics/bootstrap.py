"""Confidence intervals by resampling examples (Efron & Tibshirani 1993, chapters 13 and 14; Koehn 2004 for corpora).

A metric is given as additive rows (N, S), one per example (a sentence for entity and corpus metrics), and a
function from summed rows (R, S) to values (R,). A resample is then one row of counts (R, N), and all resamples are one
matrix product: exact, and fast enough for thousands of resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nacre.errors import ConfigError, DataError

Floats = NDArray[np.float64]
OfSums = Callable[[Floats], Floats]
Method = Literal["bca", "percentile"]

_CHUNK = 4_000_000  # counts held at once: 32 MB


@dataclass(frozen=True)
class Bootstrap:
    """How to resample. BCa corrects bias and skew and is the default; percentile is the plain quantile interval."""

    resamples: int = 1000
    level: float = 0.95
    method: Method = "bca"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ConfigError(f"{self.resamples} resamples are too few for an interval", remedy="use 100 or more")
        if not 0 < self.level < 1:
            raise ConfigError(f"the level {self.level} is no probability", remedy="use 0.95, say")
        if self.method not in ("bca", "percentile"):
            raise ConfigError(f"no bootstrap method {self.method!r}", remedy="use 'bca' or 'percentile'")


@dataclass(frozen=True)
class Interval:
    """A value with its interval. `method` is the one really used; `undefined` counts resamples without a value."""

    value: float
    low: float
    high: float
    level: float
    method: str
    undefined: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """`second` minus `first` on the same examples, its interval, and a two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    level: float
    p_value: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _counts(n: int, settings: Bootstrap) -> Iterator[Floats]:
    """How often each example is drawn, (chunk, N) at a time; the same for the same seed and N."""
    rng = np.random.default_rng(settings.seed)
    left = settings.resamples
    while left:
        size = min(left, max(1, _CHUNK // n))
        drawn = rng.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        left -= size


def _checked(rows: Floats) -> Floats:
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[0] == 0:
        raise DataError("there is no example to resample", remedy="give at least one row per example, (N, S)")
    return array


def interval(rows: Floats, metric: OfSums, settings: Bootstrap | None = None) -> Interval:
    """The metric of all rows with its bootstrap interval."""
    settings = settings or Bootstrap()
    table = _checked(rows)
    total = table.sum(axis=0)
    value = float(metric(total[None, :])[0])
    values = np.concatenate([metric(counts @ table) for counts in _counts(len(table), settings)])
    jackknife = metric(total[None, :] - table) if settings.method == "bca" and len(table) > 1 else None
    return _interval(value, values, jackknife, settings)


def mean_interval(values: Floats, settings: Bootstrap | None = None) -> Interval:
    """The mean of per-example values (N,) with its interval."""
    table = np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(values))])
    return interval(table, lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1), settings)


def interval_of(metric: Callable[[NDArray[np.int64]], float], n: int, settings: Bootstrap | None = None) -> Interval:
    """For metrics that are no function of sums (AUC): `metric` gets example indices (N,), repeats included.

    Percentile only, since the jackknife would cost N more calls; a NaN marks a resample without a value.
    """
    settings = settings or Bootstrap()
    rng = np.random.default_rng(settings.seed)
    values = np.array([metric(rng.integers(0, n, size=n)) for _ in range(settings.resamples)])
    return _interval(metric(np.arange(n)), values, None, settings)


def paired(first: Floats, second: Floats, metric: OfSums, settings: Bootstrap | None = None) -> Difference:
    """Two systems on the same examples: both are resampled together, so that easy examples cancel.

    The p-value is the share of resampled differences, shifted to mean zero, that are at least as large as the
    observed one (Berg-Kirkpatrick et al. 2012, section 3), with one added above and below.
    """
    settings = settings or Bootstrap()
    rows_1, rows_2 = _checked(first), _checked(second)
    if len(rows_1) != len(rows_2):
        raise DataError(
            f"the two systems have {len(rows_1)} and {len(rows_2)} examples",
            remedy="predict the same examples, in the same order, with both",
        )

    def of_both(sums: Floats) -> Floats:
        return metric(sums[:, rows_1.shape[1] :]) - metric(sums[:, : rows_1.shape[1]])

    both = np.hstack([rows_1, rows_2])
    total = both.sum(axis=0)
    value = float(of_both(total[None, :])[0])
    values = np.concatenate([of_both(counts @ both) for counts in _counts(len(both), settings)])
    jackknife = of_both(total[None, :] - both) if settings.method == "bca" and len(both) > 1 else None
    found = _interval(value, values, jackknife, settings)
    extreme = int(np.sum(np.abs(values - value) >= abs(value) - 1e-12))
    p_value = (extreme + 1) / (len(values) + 1)
    return Difference(value, found.low, found.high, settings.level, p_value, found.method)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927): a cross-check for accuracy, and honest at 0 and 1."""
    if n <= 0 or not 0 <= successes <= n:
        raise DataError(f"{successes} of {n} is no proportion", remedy="give 0 <= successes <= n and n > 0")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(share, 0.0 if successes == 0 else low, 1.0 if successes == n else high, level, "wilson")


def _interval(value: float, values: Floats, jackknife: Floats | None, settings: Bootstrap) -> Interval:
    defined = values[np.isfinite(values)]
    undefined = len(values) - len(defined)
    if len(defined) < 100:
        raise DataError(
            f"the metric has no value in {undefined} of {len(values)} resamples",
            remedy="measure on more examples, with every class present",
        )
    tails = np.array([(1 - settings.level) / 2, (1 + settings.level) / 2])
    corrected = None if jackknife is None else _bca_tails(value, defined, jackknife, tails)
    low, high = np.quantile(defined, tails if corrected is None else corrected)
    method = "percentile" if corrected is None else "bca"
    return Interval(value, float(low), float(high), settings.level, method, undefined)


def _bca_tails(value: float, values: Floats, jackknife: Floats, tails: Floats) -> Floats | None:
    """Corrected quantiles (Efron 1987, eq. 2.3 and 6.6); None where the bias has no finite estimate."""
    below = (np.sum(values < value) + 0.5 * np.sum(values == value)) / len(values)
    leave_out = jackknife[np.isfinite(jackknife)]
    if not 0 < below < 1 or len(leave_out) < 2:
        return None
    normal = NormalDist()
    bias = normal.inv_cdf(float(below))
    deviation = leave_out.mean() - leave_out
    spread = float((deviation**2).sum())
    skew = float((deviation**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    corrected = []
    for tail in tails:
        z = bias + normal.inv_cdf(float(tail))
        if 1 - skew * z <= 0:
            return None
        corrected.append(normal.cdf(bias + z / (1 - skew * z)))
    return np.array(corrected)
