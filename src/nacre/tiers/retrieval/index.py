"""An index: passages, full text and vectors in one folder, searched by words, by meaning, or both.

    passages.sqlite   documents, chunks, full text
    vectors.npy       (N, D) float32, length 1, in the order of the chunks; absent without an embedding engine
    index.json        how it was made, by which engine, and the mode that validation chose

The vectors are the truth and exact search over them the default; a store for large indexes is built from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nacre.data.write import write_json
from nacre.engine.protocol import Engine
from nacre.errors import CheckpointError, ConfigError, UsageError, closest
from nacre.tiers.retrieval.embedding import Embedder
from nacre.tiers.retrieval.fusion import fuse
from nacre.tiers.retrieval.passages import Passage, Passages
from nacre.tiers.retrieval.vectors import Filters, Vectors, VectorStore

Mode = Literal["auto", "lexical", "dense", "hybrid"]
MANIFEST, VECTORS = "index.json", "vectors.npy"
POOL = 100  # passages that each ranking gives to fusion and to reranking

# Orders passages anew: (query, passages) -> scores, the highest best.
Reranker = Callable[[str, Sequence[Passage]], Sequence[float]]


@dataclass(frozen=True)
class IndexManifest:
    """`index.json`. `mode` is what `auto` means and `why` how it was chosen. `engine` is None for full text alone."""

    documents: int
    chunks: int
    how: Mapping[str, Any]
    engine: Mapping[str, Any] | None = None
    mode: Mode = "lexical"
    why: str = "no embedding engine was given"
    format: int = 1


@dataclass(frozen=True)
class Hit:
    """A passage that was found: where it stands (characters `start` to `end` of `source`), and its score in `mode`."""

    source: str
    start: int
    end: int
    text: str
    score: float
    mode: str
    title: str = ""
    headings: tuple[str, ...] = ()
    page: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Index:
    """An index opened for searching. `engine` embeds queries; it must be the one that embedded the passages.

    `vectors`: where they are searched: `auto`, `exact`, `graph`, or the address of a served database (`opening.py`);
    `store` is one that is open already.
    """

    def __init__(
        self, folder: Path, engine: Engine | None = None, vectors: str = "auto", store: VectorStore | None = None
    ) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        self._where = vectors
        self.passages = Passages(folder)
        self._embedder = None if engine is None else Embedder(engine)
        self._store = store
        if engine is not None:
            self._check(engine)

    def search(
        self,
        query: str,
        k: int = 10,
        mode: Mode = "auto",
        filters: Filters | None = None,
        rerank: Reranker | None = None,
    ) -> list[Hit]:
        """The best `k` passages, the best first."""
        return self.search_many([query], k, mode, filters, rerank)[0]

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        mode: Mode = "auto",
        filters: Filters | None = None,
        rerank: Reranker | None = None,
    ) -> list[list[Hit]]:
        """As `search`, of many queries, which are embedded in batches."""
        if k < 1:
            raise UsageError(f"the best {k} passages", remedy="ask for 1 or more")
        self._check_filters(filters)
        mode = self.resolve(mode)
        depth = max(k, POOL) if rerank is not None or mode == "hybrid" else k
        ranked = self.rank_many(queries, depth, mode, filters)
        found = []
        for query, pairs in zip(queries, ranked, strict=True):
            passages = dict(zip((key for key, _ in pairs), self.passages.keyed([key for key, _ in pairs]), strict=True))
            hits = [_hit(passages[key], score, mode) for key, score in pairs]
            if rerank is not None and hits:
                scores = rerank(query, list(passages.values()))
                pairs = sorted(zip(passages, scores, strict=True), key=lambda pair: -pair[1])
                hits = [_hit(passages[key], score, f"{mode}+rerank") for key, score in pairs]
            found.append(hits[:k])
        return found

    def rank_many(
        self, queries: Sequence[str], k: int, mode: Mode, filters: Filters | None = None
    ) -> list[list[tuple[int, float]]]:
        """(key, score) of the best `k` passages of each query, the best first."""
        mode = self.resolve(mode)
        if mode == "lexical":
            return [self._lexical(query, k, filters) for query in queries]
        dense = self._dense(queries, max(k, POOL) if mode == "hybrid" else k, filters)
        if mode == "dense":
            return dense
        lexical = [self._lexical(query, max(k, POOL), filters) for query in queries]
        return [
            fuse([[key for key, _ in words], [key for key, _ in meaning]], k)
            for words, meaning in zip(lexical, dense, strict=True)
        ]

    def resolve(self, mode: Mode) -> Mode:
        """The mode that is meant. Raises UsageError for one that this index or the lack of an engine rules out."""
        if mode not in get_args(Mode):
            raise UsageError(f"no mode {mode!r}", remedy=closest(mode, get_args(Mode)))
        meant = self.manifest.mode if mode == "auto" else mode
        if meant != "lexical" and self.manifest.engine is None:
            raise UsageError(
                f"{self.folder} holds no vectors: {mode} search needs them", remedy="build it with an embedding engine"
            )
        if meant != "lexical" and self._embedder is None:
            name = self.manifest.engine["name"] if self.manifest.engine else ""
            raise UsageError(f"{meant} search needs the engine {name}", remedy="give it, or search by words (lexical)")
        return meant

    @property
    def embedder(self) -> Embedder | None:
        """What embeds queries, with the sum of what it used."""
        return self._embedder

    def vectors(self) -> Vectors:
        """The vectors (N, D) of the passages, in their order, mapped from the disk."""
        array: Vectors = np.load(self.folder / VECTORS, mmap_mode="r")
        return array

    def close(self) -> None:
        self.passages.close()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _lexical(self, query: str, k: int, filters: Filters | None) -> list[tuple[int, float]]:
        pairs = self.passages.search(query, k, filters)
        passages = self.passages.numbered([number for number, _ in pairs])
        return [(one.key, score) for one, (_, score) in zip(passages, pairs, strict=True)]

    def _dense(self, queries: Sequence[str], k: int, filters: Filters | None) -> list[list[tuple[int, float]]]:
        assert self._embedder is not None  # `resolve` has seen to it
        if self._store is None:
            from nacre.tiers.retrieval.opening import open_store

            self._store = open_store(self.folder, self.passages, self.vectors(), self._where)
        found = self._store.search(self._embedder.embed(queries), k, filters)
        return [list(zip(near.keys.tolist(), near.scores.tolist(), strict=True)) for near in found]

    def _check(self, engine: Engine) -> None:
        made_by = self.manifest.engine
        if made_by is not None and made_by["identity"] != engine.identity:
            raise ConfigError(
                f"{self.folder} was embedded by {made_by['name']}, not by {engine.name}: their vectors do not compare",
                remedy="give the engine it was built with, or build it again",
            )

    def _check_filters(self, filters: Filters | None) -> None:
        names = self.passages.field_names() if filters else []
        for name in filters or {}:
            if name not in names:
                raise UsageError(f"no document has a field {name!r}", remedy=closest(name, names))


def _hit(passage: Passage, score: float, mode: str) -> Hit:
    chunk = passage.chunk
    place = (passage.source, chunk.start, chunk.end, chunk.text)
    return Hit(*place, float(score), mode, passage.title, chunk.headings, chunk.page, passage.fields)


def read_manifest(folder: Path) -> IndexManifest:
    """The manifest; raises CheckpointError where the folder is no index."""
    try:
        return IndexManifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {MANIFEST}", remedy="give an index made by retrieval.index") from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: {error}", remedy="build the index again") from error


def write_manifest(folder: Path, manifest: IndexManifest) -> None:
    """Writes `index.json`."""
    write_json(folder / MANIFEST, asdict(manifest))
