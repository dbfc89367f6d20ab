"""Assignments of rows and what ranks of them say. Every p-value is a base-10 logarithm, so that none becomes 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import betainc, betaln, logsumexp

from nacre.lifecycle.audit.tensors import Floats

Places = NDArray[np.int64]
_LN10 = math.log(10)


def unit_rows(values: Floats) -> Floats:
    """Each row over its Euclidean length; rows of zeros stay zeros."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0, lengths, 1), np.float32)


def unit_columns(values: Floats) -> Floats:
    """Each column with its mean taken off and of length 1: products of such columns are correlations over rows."""
    values = values - values.mean(axis=0, keepdims=True)
    lengths = np.linalg.norm(values, axis=0, keepdims=True)
    return np.asarray(values / np.where(lengths > 1e-12, lengths, 1), np.float32)


def distinct(is_alive: ArrayLike, marks: Floats) -> Places:
    """(k,) the numbers, rising, of neurons that are alive, each of several with equal `marks` (F, ...) once. Dead ones
    and repeats lie where they lie by no training, and any two projections agree on them."""
    alive = np.flatnonzero(is_alive)
    return np.asarray(alive[np.sort(np.unique(marks[alive], axis=0, return_index=True)[1])], dtype=np.int64)


def assign(similarity: Floats) -> Places:
    """(k,) the column given to each row so that the sum is largest, each column at most once (k rows <= columns)."""
    return np.asarray(linear_sum_assignment(similarity, maximize=True)[1], dtype=np.int64)


def spearman(one: Places, other: Places) -> float:
    """Spearman's rank correlation of two lists without ties; 0 for fewer than three."""
    if len(one) < 3:
        return 0.0
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def log10_tail(rho: float, count: int) -> float:
    """log10 P(Spearman >= rho) of two independent orders of `count` (t with count - 2 degrees of freedom).

    Never below that of the one order out of count! that correlates perfectly. Computed as half an incomplete beta
    function in logarithms: `scipy.stats.t.logsf` loses it at about 1e-300.
    """
    if count < 3:
        return 0.0
    least = -math.lgamma(count + 1) / _LN10
    if rho <= 0:
        return math.log10(0.5) if rho == 0 else math.log10(1 - 10 ** log10_tail(-rho, count))
    x, a, b = 1 - rho * rho, (count - 2) / 2, 0.5
    if x <= 1e-15:
        return least
    plain = float(betainc(a, b, x))
    if plain > 1e-250:
        return math.log10(plain / 2)
    log_i = a * math.log(x) + b * math.log1p(-x) - math.log(a) - float(betaln(a, b)) + math.log(_series(a, b, x))
    return max(least, (log_i + math.log(0.5)) / _LN10)


def _series(a: float, b: float, x: float) -> float:
    """2F1(a + b, 1; a + 1; x) by its series. Far out in the tail x is well below 1; scipy's fails for a in hundreds."""
    total = term = 1.0
    for n in range(100_000):
        term *= (a + b + n) / (a + 1 + n) * x
        total += term
        if term < 1e-16 * total:
            break
    return total


def fisher(log10_p: Sequence[float]) -> float:
    """log10 of Fisher's combined p of independent tests: the tail of chi-square with 2k degrees of freedom."""
    k = len(log10_p)
    if k == 0:
        return 0.0
    half = max(-sum(log10_p) * _LN10, 1e-300)
    terms = [i * math.log(half) - math.lgamma(i + 1) for i in range(k)]
    return min(0.0, float(logsumexp(terms) - half) / _LN10)


def as_p(log10_p: float) -> float:
    """The p-value itself; never 0: what is smaller than a float can say is told as 1e-300."""
    return float(10 ** max(log10_p, -300.0))


def monotone_path(score: Floats) -> list[tuple[int, int]]:
    """Pairs (i, j), both rising, min(rows, columns) of them, with the largest sum of `score`.

    Among equals the one closest to the diagonal. Needleman and Wunsch (1970), without a price for gaps.
    """
    rows, columns = score.shape
    i, j = np.meshgrid(np.arange(rows) / max(rows - 1, 1), np.arange(columns) / max(columns - 1, 1), indexing="ij")
    gain = score.astype(np.float64) + 10.0 - 1e-6 * np.abs(i - j)  # 10: a pair is worth more than a gap
    best = np.zeros((rows + 1, columns + 1))
    for r in range(1, rows + 1):
        for c in range(1, columns + 1):
            best[r, c] = max(best[r - 1, c - 1] + gain[r - 1, c - 1], best[r - 1, c], best[r, c - 1])
    path, r, c = list[tuple[int, int]](), rows, columns
    while r and c:
        if best[r, c] == best[r - 1, c - 1] + gain[r - 1, c - 1]:
            path.append((r - 1, c - 1))
            r, c = r - 1, c - 1
        elif best[r, c] == best[r - 1, c]:
            r -= 1
        else:
            c -= 1
    return path[::-1]
