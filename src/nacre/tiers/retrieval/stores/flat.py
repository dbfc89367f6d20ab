"""Exact search by one matrix product, over an array in memory: the reference, and the default for most indexes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nacre.tiers.retrieval.vectors import Fields, Filters, Keys, Near, Vectors, lets_through

_BLOCK = 64  # queries at a time: their scores against 100,000 rows are 25 MB


class Flat:
    """Vectors in an array. Exact, deterministic, nothing to build; time grows with the number of rows."""

    def __init__(self, keys: Keys, vectors: Vectors, fields: Sequence[Fields]) -> None:
        self._keys, self._vectors, self._fields = keys, vectors, list(fields)

    @classmethod
    def empty(cls, dimensions: int) -> Flat:
        return cls(np.empty(0, np.int64), np.empty((0, dimensions), np.float32), [])

    def upsert(self, keys: Keys, vectors: Vectors, fields: Sequence[Fields]) -> None:
        self.delete(keys)
        self._keys = np.concatenate([self._keys, keys])
        self._vectors = np.concatenate([self._vectors, vectors])
        self._fields += fields

    def delete(self, keys: Keys) -> None:
        kept = ~np.isin(self._keys, keys)
        self._keys, self._vectors = self._keys[kept], self._vectors[kept]
        self._fields = [one for one, stays in zip(self._fields, kept, strict=True) if stays]

    def search(self, queries: Vectors, k: int, filters: Filters | None = None) -> list[Near]:
        keys, vectors = self._keys, self._vectors
        if filters:
            passing = np.array([lets_through(one, filters) for one in self._fields], dtype=bool)
            keys, vectors = keys[passing], vectors[passing]
        found: list[Near] = []
        for begin in range(0, len(queries), _BLOCK):
            scores = queries[begin : begin + _BLOCK] @ vectors.T
            found += [best(row, keys, k) for row in scores]
        return found

    def keys(self) -> Keys:
        return np.sort(self._keys)

    def close(self) -> None:
        pass


def best(scores: Vectors, keys: Keys, k: int) -> Near:
    """The `k` highest of the scores (N,), the highest first; equal ones in the order of their rows."""
    k = min(k, len(scores))
    if k == 0:
        return Near(keys[:0], scores[:0])
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)  # ties included: partition alone would pick among them by chance
    chosen = candidates[np.lexsort((candidates, -scores[candidates]))][:k]
    return Near(keys[chosen], scores[chosen])
