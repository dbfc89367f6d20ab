"""Which tiers differ: each beside the best, on the same test rows, with seeds and multiple comparisons reckoned in.

- One run each: the paired bootstrap of `metrics/quality.py`; for shares of hits the p-value is McNemar's exact test
  (McNemar 1947; the binomial form, Dietterich 1998, section 3.1).
- A tier trained with several seeds: its score is their mean, and rows and seeds are resampled together. With S seeds a
  plain bootstrap shows (S-1)/S of their variance; deviations are stretched for that (Rao & Wu 1988, section 2).
- p-values are corrected for the number of comparisons (Holm 1979).
- Where the budget left rows of a tier unmeasured, both are judged on the rows that both answered: a prefix, since test
  rows are answered in one shuffled order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.errors import DataError
from nacre.ladder.result import Row, Versus
from nacre.metrics.bootstrap import Bootstrap
from nacre.metrics.multiple import holm
from nacre.metrics.quality import Judged, Quality
from nacre.metrics.quality import Row as TestRow

Floats = NDArray[np.float64]
# Answers of a tier: one sequence of values per seed, each for a prefix of the test rows.
Answers = Sequence[Sequence[Any]]

SETTINGS = Bootstrap(resamples=2000)
# The best is looked for among tiers that answered at least this share of what the fullest one did.
CONTENDER = 0.5
_CHUNK = 4_000_000  # counts held at once: 32 MB


@dataclass(frozen=True)
class _Beside:
    """A difference before correction."""

    difference: float
    low: float
    high: float
    p: float
    exact: bool
    examples: int


def compare(
    rows: Sequence[Row],
    quality: Quality,
    tests: Sequence[TestRow],
    answers: Mapping[str, Answers],
    settings: Bootstrap = SETTINGS,
) -> tuple[Row, ...]:
    """The rows with score, interval, seeds, counts of examples, and their difference from the best.

    `answers` maps a row's name to its values per seed, as `Quality.judge` takes them (None is a wrong answer); a row
    without answers, or whose status is not `ok`, is left as it is. Raises DataError for more answers than test rows.
    """
    bench = _Bench(quality, tests, {row.name: answers[row.name] for row in rows if _answered(row, answers)})
    filled = [_scored(row, bench, settings) if row.name in bench.counts else row for row in rows]
    best = _best(filled, bench)
    if best is None:
        return tuple(filled)
    others = [row.name for row in filled if row.name in bench.counts and row.name != best]
    found = {name: _beside(bench, best, name, settings) for name in others}
    corrected = dict(zip(others, holm([found[name].p for name in others]), strict=True))
    return tuple(
        replace(row, vs_best=_versus(best, found[row.name], corrected[row.name])) if row.name in found else row
        for row in filled
    )


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """The exact two-sided p-value that two solvers are right equally often, from the rows where only one is."""
    one, other = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    n = one + other
    tail: int = sum(math.comb(n, k) for k in range(min(one, other) + 1))
    return min(1.0, float(2 * tail / 2**n))


class _Bench:
    """Answers judged on prefixes of the test rows; every prefix once for all the tiers that reach so far."""

    def __init__(self, quality: Quality, tests: Sequence[TestRow], answers: Mapping[str, Answers]) -> None:
        self._quality, self._tests, self._answers = quality, tests, answers
        self.size = len(tests)
        self.counts = {name: min(len(values) for values in seeds) for name, seeds in answers.items()}
        self._judged: dict[int, dict[str, Judged]] = {}
        for name, seeds in answers.items():
            if max(len(values) for values in seeds) > len(tests):
                raise DataError(
                    f"{name} gave more answers than the {len(tests):,} test rows", remedy="answer every row once"
                )

    def judged(self, name: str, n: int) -> list[Judged]:
        """One Judged per seed on the first `n` rows."""
        if n not in self._judged:
            known = [one for one, count in self.counts.items() if count >= n]
            values = {f"{seed}/{one}": v[:n] for one in known for seed, v in enumerate(self._answers[one])}
            self._judged[n] = self._quality.judge_all(self._tests[:n], values)
        return [self._judged[n][f"{seed}/{name}"] for seed in range(len(self._answers[name]))]

    def score(self, name: str, n: int) -> float:
        """The mean of the seeds' scores on the first `n` rows."""
        return float(np.mean([one.score for one in self.judged(name, n)]))


def _answered(row: Row, answers: Mapping[str, Answers]) -> bool:
    return row.status == "ok" and bool(answers.get(row.name)) and all(len(one) > 0 for one in answers[row.name])


def _scored(row: Row, bench: _Bench, settings: Bootstrap) -> Row:
    n = bench.counts[row.name]
    seeds = bench.judged(row.name, n)
    if len(seeds) == 1:
        found = seeds[0].interval(settings)
        low, high = found.low, found.high
    else:
        low, high = _ends(_resampled([seeds], n, settings)[0], settings.level)
    return replace(
        row,
        score=float(np.mean([one.score for one in seeds])),
        ci_low=low,
        ci_high=high,
        seeds=tuple(one.score for one in seeds),
        examples=n,
        unmeasured=bench.size - n,
    )


def _best(rows: Sequence[Row], bench: _Bench) -> str | None:
    """The highest score on the rows that all contenders answered; of equal ones the thinnest tier."""
    fullest = max(bench.counts.values(), default=0)
    known = [row for row in rows if bench.counts.get(row.name, 0) >= max(1.0, CONTENDER * fullest)]
    if not known:
        return None
    n = min(bench.counts[row.name] for row in known)
    return max(known, key=lambda row: (bench.score(row.name, n), -row.tier)).name


def _beside(bench: _Bench, best: str, name: str, settings: Bootstrap) -> _Beside:
    """`name` minus `best` on the rows that both answered."""
    n = min(bench.counts[best], bench.counts[name])
    top, mine = bench.judged(best, n), bench.judged(name, n)
    if len(top) == len(mine) == 1:
        found = top[0].against(mine[0], settings)
        exact = top[0].counts_hits and mine[0].counts_hits
        p = mcnemar(top[0].rows[:, 0] > 0, mine[0].rows[:, 0] > 0) if exact else found.p_value
        return _Beside(found.value, found.low, found.high, p, exact, n)
    tops, mines = _resampled([top, mine], n, settings)
    value = bench.score(name, n) - bench.score(best, n)
    values = mines - tops
    low, high = _ends(values, settings.level)
    extreme = int(np.sum(np.abs(values - value) >= abs(value) - 1e-12))
    return _Beside(value, low, high, (extreme + 1) / (len(values) + 1), False, n)


def _resampled(groups: Sequence[Sequence[Judged]], n: int, settings: Bootstrap) -> list[Floats]:
    """Per group of seeds its mean score (R,) in every resample: the same rows for all groups, seeds for each."""
    rng = np.random.default_rng(settings.seed)
    size = max(1, _CHUNK // n)
    parts: list[list[Floats]] = [[] for _ in groups]
    for start in range(0, settings.resamples, size):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(size, settings.resamples - start)).astype(np.float64)
        for part, seeds in zip(parts, groups, strict=True):
            part.append(_mean_of_seeds(np.stack([one.of_sums(counts @ one.rows) for one in seeds]), rng))
    return [np.concatenate(part) for part in parts]


def _mean_of_seeds(values: Floats, rng: np.random.Generator) -> Floats:
    """Values (S, R) of S seeds -> means (R,) over seeds drawn anew in every resample."""
    n_seeds, resamples = values.shape
    centre: Floats = values.mean(axis=0)
    if n_seeds == 1:
        return centre
    drawn = np.take_along_axis(values.T, rng.integers(0, n_seeds, size=(resamples, n_seeds)), axis=1).mean(axis=1)
    return np.asarray(centre + math.sqrt(n_seeds / (n_seeds - 1)) * (drawn - centre))


def _ends(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _versus(best: str, found: _Beside, p_holm: float) -> Versus:
    return Versus(
        best=best,
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        p_holm=p_holm,
        test="mcnemar" if found.exact else "bootstrap",
        examples=found.examples,
    )
