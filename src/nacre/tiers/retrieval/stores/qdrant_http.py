"""A served vector database: Qdrant at an address. The same rows and filters as in process. Needs the extra `qdrant`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nacre.errors import NacreError, UsageError
from nacre.lazy import require
from nacre.tiers.retrieval.vectors import Fields, Filters, Keys, Near, Vectors, tags, wanted_tags

_BATCH = 500
_TAGS = "tags"


class StoreUnreachable(NacreError):
    """The vector database did not answer, or refused."""


class QdrantHttp:
    """A collection of a Qdrant server, made when it is not there.

    `address` is `http(s)://HOST:PORT#COLLECTION`; `client` stands in for the connection (tests give a local one).
    """

    def __init__(self, address: str, dimensions: int, *, key: str | None = None, client: Any = None) -> None:
        place, _, self._collection = address.partition("#")
        if not self._collection:
            raise UsageError(f"{address} names no collection", remedy="write http://HOST:PORT#COLLECTION")
        module = require("qdrant_client")
        self._place, self._models = place, module.models
        self._errors = _errors()
        self._client = client or module.QdrantClient(url=place, api_key=key, timeout=30)
        self._made(dimensions)

    def _made(self, dimensions: int) -> None:
        models = self._models
        if not self._call("collection_exists", self._collection):
            vectors = models.VectorParams(size=dimensions, distance=models.Distance.DOT)
            self._call("create_collection", self._collection, vectors_config=vectors)
            keyword = models.PayloadSchemaType.KEYWORD
            self._call("create_payload_index", self._collection, field_name=_TAGS, field_schema=keyword)
            return
        have = self._call("get_collection", self._collection).config.params.vectors.size
        if have != dimensions:
            raise UsageError(
                f"the collection {self._collection} at {self._place} has {have} dimensions, these vectors {dimensions}",
                remedy="name another collection, or delete it",
            )

    def _call(self, verb: str, *arguments: Any, **named: Any) -> Any:
        try:
            return getattr(self._client, verb)(*arguments, **named)
        except self._errors as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise StoreUnreachable(
                f"the vector database at {self._place}: {line}", remedy="check the address and that it is running"
            ) from error

    def upsert(self, keys: Keys, vectors: Vectors, fields: Sequence[Fields]) -> None:
        for begin in range(0, len(keys), _BATCH):
            some = slice(begin, begin + _BATCH)
            points = [
                self._models.PointStruct(id=key, vector=vector, payload={_TAGS: tags(one)})
                for key, vector, one in zip(keys[some].tolist(), vectors[some].tolist(), fields[some], strict=True)
            ]
            self._call("upsert", self._collection, points=points, wait=True)

    def delete(self, keys: Keys) -> None:
        if not len(keys):  # the server refuses an empty list
            return
        selector = self._models.PointIdsList(points=keys.tolist())
        self._call("delete", self._collection, points_selector=selector, wait=True)

    def search(self, queries: Vectors, k: int, filters: Filters | None = None) -> list[Near]:
        models, passing = self._models, self._filter(filters)
        requests = [models.QueryRequest(query=query.tolist(), limit=k, filter=passing) for query in queries]
        found = self._call("query_batch_points", self._collection, requests=requests)
        return [_near(one.points) for one in found]

    def _filter(self, filters: Filters | None) -> Any:
        if not filters:
            return None
        models = self._models
        conditions = [
            models.FieldCondition(key=_TAGS, match=models.MatchAny(any=any_of)) for any_of in wanted_tags(filters)
        ]
        return models.Filter(must=conditions)

    def keys(self) -> Keys:
        found: list[int] = []
        offset = None
        while True:
            records, offset = self._call(
                "scroll", self._collection, limit=10_000, offset=offset, with_payload=False, with_vectors=False
            )
            found += [int(record.id) for record in records]
            if offset is None:
                return np.array(sorted(found), dtype=np.int64)

    def close(self) -> None:
        self._client.close()


def _errors() -> tuple[type[Exception], ...]:
    responses, errors = require("qdrant_client.http.exceptions"), require("httpx")
    return (responses.ApiException, errors.HTTPError, ConnectionError, TimeoutError)


def _near(points: Sequence[Any]) -> Near:
    keys = np.array([int(point.id) for point in points], dtype=np.int64)
    return Near(keys, np.array([point.score for point in points], dtype=np.float32))
