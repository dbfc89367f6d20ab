"""MinHash signatures by numpy, and the pairs of them that are alike: vectorised, deterministic, order-independent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nacre.data.ngrams import Ids, mix, rolling, units_of
from nacre.data.rows import digest64

Signatures = NDArray[np.uint32]
Rows = NDArray[np.int64]

# Shingles hashed at a time: the table of (shingles, permutations) hashes stays within a few MiB of cache.
BATCH = 8192
# Signature comparisons at a time, in rows.
BLOCK = 1 << 15
# Of truly alike pairs at the threshold, the share that must meet in some band.
RECALL = 0.99


class Signer:
    """Collects texts and signs them in batches: `add` texts, then `signatures()`."""

    def __init__(self, permutations: int, shingle: int) -> None:
        self.shingle = shingle
        # One odd multiplier and one offset per permutation: multiply-shift hashing (Dietzfelbinger et al. 1997).
        seeds = mix(np.arange(1, 2 * permutations + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        self._multiplier = seeds[:permutations] | np.uint64(1)
        self._offset = seeds[permutations:]
        self._pending: list[Ids] = []
        self._n_pending = 0
        self._done: list[Signatures] = []

    def add(self, text: str) -> None:
        ids = units_of(text).ids
        if len(ids) < self.shingle:  # one shingle: the whole text, be it punctuation only
            ids = np.concatenate((ids, _filling(text, self.shingle - len(ids), len(ids) == 0)))
        self._pending.append(ids)
        self._n_pending += len(ids)
        if self._n_pending >= BATCH:
            self._sign()

    def signatures(self) -> Signatures:
        """(N, permutations) the signatures of all texts, which are then handed over: the signer keeps none."""
        self._sign()
        done, self._done = self._done, []
        return np.concatenate([np.empty((0, len(self._offset)), dtype=np.uint32), *done])

    def _sign(self) -> None:
        if not self._pending:
            return
        lengths = np.array([len(ids) for ids in self._pending])
        # One pass over all texts laid end to end; windows that cross from one text into the next are taken out.
        hashes = rolling(np.concatenate(self._pending), self.shingle)
        inside = np.ones(len(hashes), dtype=bool)
        for back in range(1, self.shingle):
            inside[np.cumsum(lengths)[:-1] - back] = False
        counts = lengths - self.shingle + 1
        begins = np.cumsum(counts) - counts
        values = ((hashes[inside][:, None] * self._multiplier + self._offset) >> np.uint64(32)).astype(np.uint32)
        self._done.append(np.minimum.reduceat(values, begins, axis=0))
        self._pending, self._n_pending = [], 0


def _filling(text: str, count: int, whole: bool) -> Ids:
    """Units that fill a short text up to one shingle: zeros; for a text without units its own hash, so that it is
    alike only to its equals."""
    return np.full(count, digest64(" ".join(text.split())) if whole else 0, dtype=np.uint64)


def bands(permutations: int, threshold: float) -> tuple[int, int]:
    """(bands, rows per band): the longest bands that still find `RECALL` of the pairs at the threshold."""
    for rows in range(permutations, 0, -1):
        n_bands = permutations // rows
        if 1 - (1 - threshold**rows) ** n_bands >= RECALL:
            return n_bands, rows
    return permutations, 1


def near_pairs(signatures: Signatures, threshold: float) -> Rows:
    """(P, 2) pairs of row numbers that connect all rows whose estimated similarity reaches `threshold`.

    Equal signatures are joined first and only one of them compared further; within a band's bucket all are compared.
    """
    if len(signatures) < 2:
        return np.empty((0, 2), dtype=np.int64)
    unique, first, inverse = _unique_rows(signatures)
    found = [np.stack([np.arange(len(signatures)), first[inverse]], axis=1)]
    n_bands, rows = bands(signatures.shape[1], threshold)
    for band in range(n_bands):
        keys = _row_hash(unique[:, band * rows : (band + 1) * rows])
        for left, right in _bucket_pairs(keys):
            alike = (unique[left] == unique[right]).mean(axis=1) >= threshold
            found.append(np.stack([first[left[alike]], first[right[alike]]], axis=1))
    pairs: Rows = np.concatenate(found)
    different: Rows = pairs[pairs[:, 0] != pairs[:, 1]]
    return different


def _unique_rows(signatures: Signatures) -> tuple[Signatures, Rows, Rows]:
    """(distinct signatures, row number of the first of each, which one each row is); by 64-bit hash of the row."""
    _, first, inverse = np.unique(_row_hash(signatures), return_index=True, return_inverse=True)
    distinct: Signatures = signatures[first]
    return distinct, first.astype(np.int64), inverse.reshape(-1).astype(np.int64)


def _row_hash(values: Signatures) -> Ids:
    hashes = np.zeros(len(values), dtype=np.uint64)
    for column in range(values.shape[1]):
        hashes = mix(hashes ^ values[:, column])
    return hashes


def _bucket_pairs(keys: Ids) -> Iterator[tuple[Rows, Rows]]:
    """All pairs of positions with equal keys, as two arrays, about `BLOCK` pairs at a time."""
    order = np.argsort(keys, kind="stable").astype(np.int64)
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    sizes = np.diff(np.append(begins, len(keys)))
    for size in np.unique(sizes[sizes > 1]).tolist():
        buckets = order[begins[sizes == size][:, None] + np.arange(size)]
        if size * (size - 1) // 2 > BLOCK:
            yield from (pair for bucket in buckets for pair in _large_bucket_pairs(bucket))
            continue
        i, j = np.triu_indices(size, k=1)
        step = max(1, BLOCK // len(i))
        for begin in range(0, len(buckets), step):
            some = buckets[begin : begin + step]
            yield some[:, i].reshape(-1), some[:, j].reshape(-1)


def _large_bucket_pairs(bucket: Rows) -> Iterator[tuple[Rows, Rows]]:
    step = max(1, BLOCK // len(bucket))
    for begin in range(0, len(bucket), step):
        i, j = np.meshgrid(np.arange(begin, min(begin + step, len(bucket))), np.arange(len(bucket)), indexing="ij")
        later = j > i
        yield bucket[i[later]], bucket[j[later]]
