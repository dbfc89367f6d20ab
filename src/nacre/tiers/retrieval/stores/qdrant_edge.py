"""Approximate search in process: an HNSW graph (Malkov & Yashunin 2018) kept by Qdrant Edge, the server's own format.

Made for indexes too large for exact search. Without a write-ahead log, so that several processes may read it: what was
written is durable once `flush` has returned, which every method here that writes calls. Needs the extra `retrieval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nacre.errors import CheckpointError
from nacre.lazy import require
from nacre.tiers.retrieval.vectors import Fields, Filters, Keys, Near, Vectors, tags, wanted_tags

_BATCH = 2000
_TAGS = "tags"  # the one payload field: `name=value` of everything that can be filtered by


class QdrantEdge:
    """A folder of Qdrant Edge. `ef`: how many candidates a search follows; more finds more and takes longer."""

    def __init__(self, folder: Path, dimensions: int | None = None, *, ef: int = 128) -> None:
        self._edge: Any = require("qdrant_edge")
        self._ef = ef
        try:
            if dimensions is None:
                self._shard = self._edge.EdgeShard.load(str(folder))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                self._shard = self._edge.EdgeShard.create(str(folder), self._config(dimensions))
        except Exception as error:  # the library raises nothing more particular
            raise CheckpointError(
                f"{folder} is no store of Qdrant Edge: {error}", remedy="delete the folder"
            ) from error

    def _config(self, dimensions: int) -> Any:
        edge = self._edge
        graph = edge.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=1000)
        vectors = edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Dot)
        return edge.EdgeConfig(vectors=vectors, hnsw_config=graph, wal_enabled=False)

    def upsert(self, keys: Keys, vectors: Vectors, fields: Sequence[Fields]) -> None:
        edge = self._edge
        for begin in range(0, len(keys), _BATCH):
            some = slice(begin, begin + _BATCH)
            points = [
                edge.Point(key, vector, {_TAGS: tags(one)})
                for key, vector, one in zip(keys[some].tolist(), vectors[some].tolist(), fields[some], strict=True)
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def optimise(self) -> None:
        """Builds the graph over what was written; until then new rows are searched exactly."""
        keyword = self._edge.PayloadSchemaType.Keyword
        self._shard.update(self._edge.UpdateOperation.create_field_index(_TAGS, keyword))
        self._shard.optimize()
        self._shard.flush()

    def delete(self, keys: Keys) -> None:
        if len(keys):
            self._shard.update(self._edge.UpdateOperation.delete_points(keys.tolist()))
            self._shard.flush()

    def search(self, queries: Vectors, k: int, filters: Filters | None = None) -> list[Near]:
        edge = self._edge
        params, passing = edge.SearchParams(hnsw_ef=max(self._ef, k)), self._filter(filters)
        requests = [
            edge.QueryRequest(query=edge.Query.Nearest(query.tolist()), limit=k, filter=passing, params=params)
            for query in queries
        ]
        return [_near(found) for found in self._shard.query_batch(edge.QueryBatchRequest(requests))]

    def _filter(self, filters: Filters | None) -> Any:
        if not filters:
            return None
        edge = self._edge
        conditions = [edge.FieldCondition(key=_TAGS, match=edge.MatchAny(any_of)) for any_of in wanted_tags(filters)]
        return edge.Filter(must=conditions)

    def keys(self) -> Keys:
        found: list[int] = []
        offset = None
        while True:
            records, offset = self._shard.scroll(
                self._edge.ScrollRequest(offset=offset, limit=10_000, with_payload=False, with_vector=False)
            )
            found += [record.id for record in records]
            if offset is None:
                return np.array(sorted(found), dtype=np.int64)

    def close(self) -> None:
        self._shard.close()


def _near(points: Sequence[Any]) -> Near:
    keys = np.array([int(point.id) for point in points], dtype=np.int64)
    return Near(keys, np.array([point.score for point in points], dtype=np.float32))
