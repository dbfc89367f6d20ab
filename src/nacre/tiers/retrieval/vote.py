"""Nearest neighbours vote (Cover & Hart 1967): how many, and how much each counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nacre.tiers.retrieval.index import Hit

TEMPERATURE = 0.05  # of cosines, as in label similarity: a neighbour 0.05 nearer counts e times as much


@dataclass(frozen=True)
class Vote:
    """`k` neighbours; `uniform`: each counts one, `similarity`: by its nearness. `mode` is how they are found."""

    k: int
    weighting: Literal["uniform", "similarity"]
    mode: Literal["lexical", "dense"]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def shares(hits: Sequence[Hit], vote: Vote, field: str = "label") -> dict[str, float]:
    """The share of the vote of each value of `field`, the highest first; equal ones in the order of the nearest."""
    near = hits[: vote.k]
    if not near:
        return {}
    weights = [_weight(hit.score, near[0].score, vote) for hit in near]
    counts: dict[str, float] = {}
    for hit, weight in zip(near, weights, strict=True):
        name = str(hit.fields[field])
        counts[name] = counts.get(name, 0.0) + weight
    total = sum(counts.values())
    return {name: count / total for name, count in sorted(counts.items(), key=lambda pair: -pair[1])}


def _weight(score: float, best: float, vote: Vote) -> float:
    if vote.weighting == "uniform":
        return 1.0
    if vote.mode == "dense":
        return math.exp((score - best) / TEMPERATURE)
    return score / best if best > 0 else 1.0  # BM25 has no scale of its own: shares of the best


def candidates(ks: Sequence[int], modes: Sequence[Literal["lexical", "dense"]]) -> list[Vote]:
    """Every way to vote, the simplest first: one neighbour has no weighting."""
    return [
        Vote(k, weighting, mode)
        for mode in modes
        for k in sorted(set(ks))
        for weighting in (("uniform", "similarity") if k > 1 else ("uniform",))
    ]
