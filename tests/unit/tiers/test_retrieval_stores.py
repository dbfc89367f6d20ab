"""The contract of vector stores, over every store: exact, a graph in process, a served database through its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nacre.errors import UsageError
from nacre.tiers.retrieval.stores.flat import Flat, best
from nacre.tiers.retrieval.stores.qdrant_edge import QdrantEdge
from nacre.tiers.retrieval.stores.qdrant_http import QdrantHttp, StoreUnreachable
from nacre.tiers.retrieval.vectors import VectorStore, unit

D = 16


def _local() -> Any:
    qdrant_client = pytest.importorskip("qdrant_client")
    return qdrant_client.QdrantClient(":memory:")


@pytest.fixture(params=["exact", "graph", "served"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    if request.param == "exact":
        made: VectorStore = Flat.empty(D)
    elif request.param == "graph":
        pytest.importorskip("qdrant_edge")
        made = QdrantEdge(tmp_path / "graph", D)
    else:
        made = QdrantHttp("http://localhost:6333#test", D, client=_local())
    yield made
    made.close()


def _rows(n: int, seed: int = 0) -> tuple[Any, Any, list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    keys = np.arange(n, dtype=np.int64) * 7 + 2**40
    fields = [{"topic": f"t{number % 3}", "tags": ["a", "b"] if number % 2 else ["c"]} for number in range(n)]
    return keys, unit(rng.standard_normal((n, D)).astype(np.float32)), fields


def test_finds_the_nearest(store: VectorStore) -> None:
    keys, vectors, fields = _rows(60)
    store.upsert(keys, vectors, fields)
    truth = [best(row, keys, 5) for row in vectors[:4] @ vectors.T]
    for near, exact in zip(store.search(vectors[:4], 5), truth, strict=True):
        assert near.keys.tolist() == exact.keys.tolist()
        assert np.allclose(near.scores, exact.scores, atol=1e-5)
    assert store.keys().tolist() == keys.tolist()


def test_filters_and_lists(store: VectorStore) -> None:
    keys, vectors, fields = _rows(60)
    store.upsert(keys, vectors, fields)
    (near,) = store.search(vectors[:1], 60, {"topic": "t1", "tags": ["a", "x"]})
    wanted = [
        key for key, one in zip(keys.tolist(), fields, strict=True) if one["topic"] == "t1" and "a" in one["tags"]
    ]
    assert sorted(near.keys.tolist()) == wanted
    assert store.search(vectors[:1], 5, {"topic": "absent"})[0].keys.tolist() == []


def test_deletes_and_replaces(store: VectorStore) -> None:
    keys, vectors, fields = _rows(20)
    store.upsert(keys, vectors, fields)
    store.delete(keys[:5])
    store.delete(np.array([123], dtype=np.int64))  # not there: passed over
    store.delete(np.array([], dtype=np.int64))
    assert store.keys().tolist() == keys[5:].tolist()
    store.upsert(keys[5:6], vectors[:1], [{"topic": "new"}])
    (near,) = store.search(vectors[:1], 1)
    assert near.keys.tolist() == [int(keys[5])]
    assert store.search(vectors[:1], 3, {"topic": "new"})[0].keys.tolist() == [int(keys[5])]
    assert len(store.keys()) == 15


def test_a_graph_is_read_again_and_by_two(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_edge")
    keys, vectors, fields = _rows(200)
    first = QdrantEdge(tmp_path / "graph", D)
    first.upsert(keys, vectors, fields)
    first.optimise()
    first.close()
    readers = [QdrantEdge(tmp_path / "graph"), QdrantEdge(tmp_path / "graph")]
    assert [one.search(vectors[:1], 1)[0].keys.tolist() for one in readers] == [[int(keys[0])]] * 2


def test_ties_stand_in_the_order_of_rows() -> None:
    near = best(np.array([0.5, 0.9, 0.5, 0.5], dtype=np.float32), np.array([4, 3, 2, 1]), 3)
    assert near.keys.tolist() == [3, 4, 2]


def test_a_served_database_that_is_not_there() -> None:
    pytest.importorskip("qdrant_client")
    with pytest.raises(StoreUnreachable, match=r"http://127.0.0.1:9"):
        QdrantHttp("http://127.0.0.1:9#c", D)
    with pytest.raises(UsageError, match="names no collection"):
        QdrantHttp("http://127.0.0.1:9", D)


def test_another_number_of_dimensions_is_refused() -> None:
    client = _local()
    QdrantHttp("http://localhost:6333#c", D, client=client)
    with pytest.raises(UsageError, match="has 16 dimensions"):
        QdrantHttp("http://localhost:6333#c", D + 1, client=client)
