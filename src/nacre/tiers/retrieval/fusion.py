"""Several rankings as one: reciprocal rank fusion (Cormack, Clarke & Büttcher 2009, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

K = 60  # the paper's constant: how fast the weight of a place falls


def fuse(rankings: Sequence[Sequence[int]], k: int) -> list[tuple[int, float]]:
    """(key, score) of the best `k` over all rankings, each a list of keys, the best first.

    A key scores the sum of 1 / (K + place) over the rankings that name it; equal scores in the order of first mention.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for place, key in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (K + place)
    return sorted(scores.items(), key=lambda pair: -pair[1])[:k]
