"""Merges that drop single entries: DARE drops them by chance (Yu et al. 2024, section 3), TIES trims the small ones and
those against the elected sign (Yadav et al. 2023, section 4). No least squares explains such a merge whole, but over
the base every entry is one of a few sums of the parents' scaled changes, to the rounding of the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from nacre.lifecycle.audit.weights.mixture import Doubles, Matrix

HIT = 0.95  # of the entries, what such a merge explains; sums of unrelated changes are hit by one in a hundred
MATRICES = 8
_ENTRIES = 20_000  # of a matrix looked at
_WIDE = 0.01  # relative width of the window in which ratios count as one
_TOLERANCE = 2e-3  # of a parent's scaled change
_ROUNDING = 4e-7  # of the weight itself: what float32 loses


def entrywise(found: Iterable[Matrix], base: int, parents: Sequence[int]) -> dict[str, Any] | None:
    """`hits`: the share of entries that are sums of the parents' scaled changes from the base, `scales` those factors,
    `dropped` how often each parent's change is missing; None where no change shows.

    `base` and `parents` are places among the references. At most three parents. Reads `MATRICES` matrices.
    """
    if not 1 <= len(parents) <= 3:
        return None
    vectors = []
    for one, _ in zip(found, range(MATRICES), strict=False):
        step = max(1, one.vectors.shape[1] // _ENTRIES)
        vectors.append(one.vectors[:, ::step])
    if not vectors:
        return None
    whole = np.concatenate(vectors, axis=1)
    change = whole[0] - whole[1 + base]
    changes = [whole[1 + one] - whole[1 + base] for one in parents]
    scales = [_scale(change, one) for one in changes]
    if not all(scales):
        return None
    scaled = np.stack([scale * one for scale, one in zip(scales, changes, strict=True)])
    tolerance = _TOLERANCE * np.abs(scaled).max(axis=0) + _ROUNDING * np.abs(whole).max(axis=0)
    hit = np.zeros(change.shape, bool)
    held = np.zeros(scaled.shape, bool)
    for chosen in _subsets(len(scaled)):
        for divisor in {1, max(1, len(chosen))}:
            same = np.abs(change - scaled[list(chosen)].sum(axis=0) / divisor) <= tolerance
            held[list(chosen)] |= same & ~hit
            hit |= same
    moved = np.abs(scaled).max(axis=0) > 4 * tolerance  # where no change is to be seen every sum is hit
    if not moved.any():
        return None
    dropped = [float(1 - one[moved].mean()) for one in held]
    return {"hits": float(hit[moved].mean()), "scales": scales, "dropped": dropped, "entries": int(moved.sum())}


def _subsets(count: int) -> list[tuple[int, ...]]:
    return [one for size in range(count + 1) for one in combinations(range(count), size)]


def _scale(change: Doubles, part: Doubles) -> float:
    """The ratio of the two that most entries have, zero and its neighbourhood apart; 0 where none stands out."""
    large = np.abs(part) >= max(float(np.median(np.abs(part))), 1e-30)
    ratio = np.sort(change[large] / part[large])
    ratio = ratio[(ratio > 0.02) & (ratio < 20)]
    if len(ratio) < 32:
        return 0.0
    low = np.searchsorted(ratio, ratio * (1 - _WIDE / 2))
    high = np.searchsorted(ratio, ratio * (1 + _WIDE / 2), side="right")
    best = int(np.argmax(high - low))
    return float(np.median(ratio[low[best] : high[best]]))
