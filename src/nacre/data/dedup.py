"""Exact and near duplicates: the same survivors whatever the order of the rows, with the clusters reported.

Exact: equal normal form. Near: estimated Jaccard similarity of shingles (three units: characters in Chinese, words in
English) by MinHash (Broder 1997) with banding (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, ch. 3.4).
Candidates of a band are all compared, clusters are connected components, and the survivor of a cluster is the row with
the smallest content hash: none of the three depends on the order of the rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nacre.data.minhash import Signer, near_pairs
from nacre.data.normal import normal
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row, canonical, content, digest64
from nacre.errors import ConfigError

Method = Literal["exact", "near", "none"]
STEP = "dedup"


@dataclass(frozen=True)
class DedupConfig:
    """`method`: `exact`, `near` (which includes exact) or `none`. `fields`: what is compared; empty means the content.

    `threshold`: Jaccard similarity from which texts are near-duplicates. `shingle`: units per shingle.
    `permutations`: length of a signature; the estimate's standard error is sqrt(s (1 - s) / permutations).
    """

    method: Method = "exact"
    threshold: float = 0.8
    shingle: int = 3
    permutations: int = 128
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(
                f"dedup method {self.method!r} is unknown", remedy=f"one of: {', '.join(get_args(Method))}"
            )
        if not 0.2 <= self.threshold <= 1 or self.shingle < 1 or self.permutations < 16:
            raise ConfigError(
                f"threshold {self.threshold}, shingle {self.shingle}, permutations {self.permutations}: out of range",
                remedy="0.2 <= threshold <= 1, shingle >= 1, permutations >= 16",
            )


@dataclass(frozen=True)
class Clusters:
    """Which rows are duplicates of which. `label` (N,) cluster of each row; `digest` (N,) its content hash;
    `survivor` (N,) True for one row of every cluster, the one with the smallest content hash."""

    label: NDArray[np.int64]
    digest: NDArray[np.uint64]
    survivor: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(clusters,) rows of each cluster."""
        return np.bincount(self.label).astype(np.int64)

    def keys(self) -> Iterator[str]:
        """One key per row, equal within a cluster and made from its survivor's content: for `split(clusters=...)`."""
        smallest = np.zeros(len(self.sizes), dtype=np.uint64)
        smallest[self.label[self.survivor]] = self.digest[self.survivor]
        return (f"{value:016x}" for value in smallest[self.label])


def find_clusters(rows: Iterable[Row], config: DedupConfig) -> Clusters:
    """Clusters of the rows, in one pass. Memory: some 40 bytes a row; near-duplicates, 8 bytes a permutation more."""
    digests, exact = array("Q"), array("Q")
    signer = Signer(config.permutations, config.shingle) if config.method == "near" else None
    for row in rows:
        text = content(row, config.fields or None)
        digests.append(digest64(canonical(row)))
        exact.append(digest64(normal(text)))
        if signer:
            signer.add(text)
    digest, keys = np.array(digests, dtype=np.uint64), np.array(exact, dtype=np.uint64)
    different = config.method == "none"
    label = np.arange(len(digest)) if different else np.unique(keys, return_inverse=True)[1].reshape(-1)
    if signer:
        pairs = near_pairs(signer.signatures(), config.threshold)
        label = _components(label, pairs)
    return Clusters(label.astype(np.int64), digest, _survivors(label, digest))


def _survivors(label: NDArray[np.int64], digest: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """The first of each cluster in the order of content hashes; among equal contents any one is the same row."""
    order = np.lexsort((digest, label))
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = label[order][1:] != label[order][:-1]
    survivor = np.zeros(len(order), dtype=bool)
    survivor[order[begins]] = True
    return survivor


def _components(label: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels of the connected components when rows of one label, and the rows of each pair, are joined (union-find)."""
    parent = list(range(int(label.max()) + 1)) if len(label) else []

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for left, right in label[pairs].tolist():
        a, b = root(left), root(right)
        if a != b:
            parent[max(a, b)] = min(a, b)
    roots = np.array([root(node) for node in range(len(parent))], dtype=np.int64)
    return np.unique(roots[label], return_inverse=True)[1].reshape(-1) if len(label) else label


def dedup(rows: Sequence[Row] | Iterable[Row], config: DedupConfig, report: DropReport) -> Iterator[Row]:
    """One row of every cluster of duplicates, in the order of the rows.

    Passes over `rows` twice: a one-pass iterator is held in memory, a list or a `Spool` is not copied.
    """
    again = list(rows) if iter(rows) is rows else rows
    return keep(again, find_clusters(again, config), report)


def keep(rows: Iterable[Row], clusters: Clusters, report: DropReport) -> Iterator[Row]:
    """The survivors of `clusters`, which were found on the same `rows` in the same order."""
    tally = report.step(STEP)
    sizes = clusters.sizes
    targets = _Targets(clusters, tally)
    for row, cluster, survives in zip(rows, clusters.label.tolist(), clusters.survivor.tolist(), strict=True):
        size = tally.enter(row)
        targets.compare(row, cluster)
        if survives:
            if sizes[cluster] > 1:
                tally.note("clusters of duplicates", f"{sizes[cluster]} rows: {content(row)}")
            tally.leave(size=size)
            yield row
        else:
            tally.drop("duplicate", content(row))


def keep_by_rank(
    rows: Iterable[Row],
    ranks: NDArray[np.int8],
    clusters: Clusters,
    report: DropReport,
    *,
    within: bool = True,
    across: bool = True,
) -> Iterator[Row]:
    """Rows of splits that must not overlap: a row goes when its cluster reaches into a split of higher rank.

    `ranks` (N,) gives each row's split: 0 train, 1 valid, 2 test. Test rows always stay. `within` also removes
    duplicates inside rank 0, keeping the one with the smallest content hash. Without `across` overlaps are only noted.
    """
    tally = report.step("overlap")
    names = ("train", "valid", "test")
    highest = np.zeros(len(clusters.sizes), dtype=np.int8)
    np.maximum.at(highest, clusters.label, ranks)
    # Survivors among the rows of each (cluster, rank): train rows are never dropped for a twin that is gone too.
    best = _survivors(clusters.label * 4 + ranks, clusters.digest)
    targets = _Targets(clusters, tally)
    places = zip(clusters.label.tolist(), ranks.tolist(), best.tolist(), strict=True)
    for row, (cluster, rank, first) in zip(rows, places, strict=True):
        size, top = tally.enter(row), int(highest[cluster])
        targets.compare(row, cluster)
        if top > rank and across:
            tally.drop(f"{names[rank]} row that is also in {names[top]}", content(row))
            continue
        if top > rank:
            tally.note(f"{names[rank]} row that is also in {names[top]}", content(row))
        if within and rank == 0 and not first:
            tally.drop("duplicate within train", content(row))
            continue
        tally.leave(size=size)
        yield row


class _Targets:
    """Notes duplicates that say different things: the same text with another label, the same tokens with other tags."""

    def __init__(self, clusters: Clusters, tally: Step) -> None:
        self._sizes, self._tally = clusters.sizes, tally
        self._first: dict[int, str] = {}

    def compare(self, row: Row, cluster: int) -> None:
        field = next((name for name in ("label", "tags") if name in row), None)
        if field is None or self._sizes[cluster] < 2:
            return
        target = row[field] if isinstance(row[field], str) else " ".join(map(str, row[field]))
        first = self._first.setdefault(cluster, target)
        if first != target:
            what = f"duplicates with different {field.removesuffix('s')}s"
            self._tally.note(what, f"{first} / {target}: {content(row)}")
