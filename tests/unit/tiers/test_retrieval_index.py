"""An index: incremental, deterministic, filtered, searched by words and by meaning, in process and in a database."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nacre.engine.protocol import Engine
from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError, ConfigError, UsageError
from nacre.metrics.quality import Quality
from nacre.progress import Silent
from nacre.recipe.stage import Work
from nacre.tiers.retrieval.build import BuildConfig, build_index
from nacre.tiers.retrieval.chunk import ChunkConfig
from nacre.tiers.retrieval.fusion import fuse
from nacre.tiers.retrieval.index import Index
from nacre.tiers.retrieval.modes import choose_mode
from nacre.tiers.retrieval.opening import synchronise
from nacre.tiers.retrieval.rerank import by_likelihood, by_reading
from nacre.tiers.retrieval.stages import IndexConfig, index
from nacre.tiers.retrieval.stores.qdrant_http import QdrantHttp

PAGES = {
    "refund.md": "---\ntitle: Refunds\ntopic: money\n---\n\nMoney comes back to your card in five days.\n",
    "tuikuan.md": "---\ntitle: 退款\ntopic: money\n---\n\n退款五天内到账，原路退回。\n",
    "parcel.md": "---\ntitle: Parcels\ntopic: post\ntags: [late, lost]\n---\n\nA late parcel is looked for.\n",
}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "engine.json").write_text('{"engine": "echo"}')
    with EngineRoom().open(folder) as opened:
        yield opened


def _bytes(folder: Path) -> dict[str, str]:
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(folder.iterdir())}


def test_finds_and_cites(pages: Path, tmp_path: Path) -> None:
    build_index(pages, tmp_path / "index")
    with Index(tmp_path / "index") as opened:
        for query, source in (("money back", "refund.md"), ("多久到账", "tuikuan.md"), ("late parcel", "parcel.md")):
            hit = opened.search(query, 1)[0]
            assert hit.source == source
            assert (pages / source).read_text(encoding="utf-8")[hit.start : hit.end] == hit.text


def test_the_same_documents_give_the_same_bytes(pages: Path, tmp_path: Path, engine: Engine) -> None:
    for name in ("one", "two"):
        build_index(pages, tmp_path / name, engine=engine)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


def test_only_what_changed_is_read_and_embedded(pages: Path, tmp_path: Path, engine: Engine) -> None:
    first = build_index(pages, tmp_path / "one", engine=engine)
    assert (first.embedded, first.kept) == (3, 0)
    (pages / "parcel.md").unlink()
    (pages / "refund.md").write_text("Another text.\n", encoding="utf-8")
    (pages / "new.txt").write_text("More.", encoding="utf-8")
    second = build_index(pages, tmp_path / "two", engine=engine, previous=tmp_path / "one")
    assert (second.embedded, second.kept, second.unchanged, second.vanished) == (2, 1, 1, 1)
    build_index(pages, tmp_path / "anew", engine=engine)
    assert _bytes(tmp_path / "two") == _bytes(tmp_path / "anew")
    with Index(tmp_path / "two", engine) as opened:
        assert not any(hit.source == "parcel.md" for hit in opened.search("late parcel", 10, "lexical"))


def test_another_config_carries_nothing_over(pages: Path, tmp_path: Path, engine: Engine) -> None:
    build_index(pages, tmp_path / "one", engine=engine)
    other = BuildConfig(chunk=ChunkConfig(size=50, overlap=0))
    built = build_index(pages, tmp_path / "two", other, engine, previous=tmp_path / "one")
    assert (built.unchanged, built.kept) == (0, 0)
    assert any("another config" in one for one in built.report.step("ingest").noted)


def test_filters(pages: Path, tmp_path: Path, engine: Engine) -> None:
    build_index(pages, tmp_path / "index", engine=engine)
    with Index(tmp_path / "index", engine) as opened:
        for mode in ("lexical", "dense", "hybrid"):
            found = {hit.source for hit in opened.search("money parcel 退款", 9, mode, {"topic": "money"})}
            assert found == {"refund.md", "tuikuan.md"}, mode
            assert [hit.source for hit in opened.search("parcel", 9, mode, {"tags": ["lost"]})] == ["parcel.md"]
        with pytest.raises(UsageError, match="topik") as raised:
            opened.search("x", filters={"topik": "money"})
        assert "topic" in raised.value.remedy


def test_a_graph_and_a_served_database_find_what_exact_search_finds(
    pages: Path, tmp_path: Path, engine: Engine
) -> None:
    qdrant_client = pytest.importorskip("qdrant_client")
    pytest.importorskip("qdrant_edge")
    build_index(pages, tmp_path / "index", engine=engine)
    with Index(tmp_path / "index", engine, "exact") as exact, Index(tmp_path / "index", engine, "graph") as graph:
        served = QdrantHttp(
            "http://localhost#c", exact.vectors().shape[1], client=qdrant_client.QdrantClient(":memory:")
        )
        assert synchronise(served, exact.passages, exact.vectors(), Silent()) == (3, 0)
        assert synchronise(served, exact.passages, exact.vectors(), Silent()) == (0, 0)
        other = Index(tmp_path / "index", engine, store=served)
        for filters in (None, {"topic": "money"}):
            found = [one.search("money", 3, "dense", filters) for one in (exact, graph, other)]
            assert [[hit.source for hit in hits] for hits in found] == [[hit.source for hit in found[0]]] * 3


def test_modes_that_cannot_be(pages: Path, tmp_path: Path, engine: Engine) -> None:
    build_index(pages, tmp_path / "words")
    build_index(pages, tmp_path / "both", engine=engine)
    with Index(tmp_path / "words", engine) as opened, pytest.raises(UsageError, match="holds no vectors"):
        opened.search("x", mode="dense")
    with Index(tmp_path / "both") as opened:
        with pytest.raises(UsageError, match="needs the engine"):
            opened.search("x")
        assert opened.search("money", mode="lexical")
        with pytest.raises(UsageError, match="no mode 'lexicall'"):
            opened.search("x", mode="lexicall")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"index.json"):
        Index(pages)


def test_another_engine_is_refused(pages: Path, tmp_path: Path, engine: Engine) -> None:
    build_index(pages, tmp_path / "index", engine=engine)
    file = tmp_path / "index" / "index.json"
    plain = json.loads(file.read_text())
    plain["engine"]["identity"] = "another"
    file.write_text(json.dumps(plain))
    with pytest.raises(ConfigError, match="do not compare"):
        Index(tmp_path / "index", engine)


def test_fusion_is_that_of_the_paper() -> None:
    fused = fuse([[1, 2, 3], [3, 4]], 4)
    assert [key for key, _ in fused] == [3, 1, 2, 4]
    assert fused[0][1] == pytest.approx(1 / 63 + 1 / 61)


class _Fixed:
    """An index whose rankings are given: places of the relevant document per query."""

    def __init__(self, places: dict[str, list[int]]) -> None:
        self.places, self.manifest = places, type("M", (), {"engine": {"name": "x"}, "chunks": 50})()

    def search_many(self, queries: list[str], k: int, mode: str) -> list[list[Any]]:
        found = []
        for number, _ in enumerate(queries):
            names = [f"other{one}" for one in range(12)]
            names.insert(self.places[mode][number], "right")
            found.append([type("H", (), {"source": name})() for name in names])
        return found


@pytest.mark.parametrize(("hybrid", "chosen"), [(0, "hybrid"), (3, "lexical"), (5, "lexical")])
def test_fusion_is_switched_on_only_where_it_helps(hybrid: int, chosen: str) -> None:
    rows = [{"query": str(number), "relevant": ["right"]} for number in range(30)]
    places = {"lexical": [2, 4] * 15, "dense": [8] * 30, "hybrid": [hybrid] * 30}
    found = choose_mode(_Fixed(places), rows, Quality("rank", "ndcg@10"))  # type: ignore[arg-type]
    assert found.mode == chosen
    assert set(found.scores) == {"lexical", "dense", "hybrid"}


def test_reranking(pages: Path, tmp_path: Path, engine: Engine) -> None:
    build_index(pages, tmp_path / "index")
    with Index(tmp_path / "index") as opened:
        for rerank in (by_likelihood(engine, 2), by_reading(engine, 2)):
            hits = opened.search("money parcel 退款", 3, rerank=rerank)
            assert {hit.source for hit in hits} == set(PAGES)
            assert all(hit.mode == "lexical+rerank" for hit in hits)
        hits = opened.search(
            "money parcel 退款", 3, rerank=lambda query, found: [one.source == "parcel.md" for one in found]
        )
        assert hits[0].source == "parcel.md"


def test_the_stage(pages: Path, tmp_path: Path) -> None:
    (tmp_path / "echo").mkdir()
    (tmp_path / "echo" / "engine.json").write_text('{"engine": "echo"}')
    (tmp_path / "q.jsonl").write_text(json.dumps({"query": "money back", "relevant": ["refund.md"]}) + "\n")
    inputs = {"documents": pages, "engine": tmp_path / "echo", "queries": tmp_path / "q.jsonl"}
    (pages / "bad.pdf").write_bytes(b"no")
    out = tmp_path / "out"
    out.mkdir()
    metrics = index(IndexConfig(), Work(inputs, out, tmp_path))
    assert (metrics["documents"], metrics["files_left_out"], metrics["mode"]) == (3, 1, "lexical")
    assert json.loads((out / "report.json").read_text())["rows_dropped"] == 1
    again = tmp_path / "again"
    again.mkdir()
    shutil.rmtree(tmp_path / "echo")
    (tmp_path / "echo").mkdir()
    (tmp_path / "echo" / "engine.json").write_text('{"engine": "echo"}')
    second = index(IndexConfig(), Work({**inputs, "previous": out}, again, tmp_path))
    assert second["embedded"] == 0
    assert second["vectors_carried_over"] == metrics["embedded"]


def test_a_killed_build_of_a_graph_leaves_nothing(
    pages: Path, tmp_path: Path, engine: Engine, monkeypatch: Any
) -> None:
    pytest.importorskip("qdrant_edge")
    from nacre.tiers.retrieval import opening
    from nacre.tiers.retrieval.stores.qdrant_edge import QdrantEdge

    build_index(pages, tmp_path / "index", engine=engine)
    with monkeypatch.context() as patch:
        patch.setattr(QdrantEdge, "optimise", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
        with Index(tmp_path / "index", engine, "graph") as opened, pytest.raises(KeyboardInterrupt):
            opened.search("money", 1, "dense")
    assert list(opening.cache_folder().iterdir()) == []
    with Index(tmp_path / "index", engine, "graph") as opened:
        assert opened.search("money", 1, "dense")


def test_vectors_are_of_length_one(pages: Path, tmp_path: Path, engine: Engine) -> None:
    built = build_index(pages, tmp_path / "index", engine=engine)
    vectors = np.load(tmp_path / "index" / "vectors.npy")
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert replace(built.manifest, documents=0).chunks == len(vectors)
