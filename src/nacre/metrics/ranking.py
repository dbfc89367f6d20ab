"""Figures of merit of ranked lists: recall, reciprocal rank, normalised discounted cumulative gain; one per query."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from nacre.errors import DataError


def recall_at(k: int, ranked: Sequence[str], relevant: Collection[str]) -> float:
    """Share of the relevant ids among the first `k`."""
    wanted = _checked(ranked, relevant)
    return len(wanted & set(ranked[:k])) / len(wanted)


def reciprocal_rank(ranked: Sequence[str], relevant: Collection[str], k: int | None = None) -> float:
    """1 / the place of the first relevant id; 0 when none is among the first `k` (all, when None)."""
    wanted = _checked(ranked, relevant)
    return next((1 / place for place, one in enumerate(ranked[:k], 1) if one in wanted), 0.0)


def ndcg_at(k: int, ranked: Sequence[str], relevant: Collection[str]) -> float:
    """Discounted gain of the first `k` over that of the best order (Järvelin & Kekäläinen 2002), gains 0 or 1."""
    wanted = _checked(ranked, relevant)
    gain = sum(1 / math.log2(place + 1) for place, one in enumerate(ranked[:k], 1) if one in wanted)
    return gain / sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))


def _checked(ranked: Sequence[str], relevant: Collection[str]) -> set[str]:
    if not relevant:
        raise DataError("a query has no relevant id", remedy="leave queries without an answer out of the test set")
    if len(set(ranked)) != len(ranked):
        raise DataError("a ranked list names an id twice", remedy="rank every id once")
    return set(relevant)
