"""Tier 3 as a solver: every kind of task, with an engine and without, chosen on validation rows, citing its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nacre.engine.room import EngineRoom
from nacre.errors import DataError
from nacre.recipe.stage import Work
from nacre.tiers.retrieval.gazetteer import Gazetteer
from nacre.tiers.retrieval.index import Hit
from nacre.tiers.retrieval.stages import RetrievalConfig, solve
from nacre.tiers.retrieval.vote import Vote, shares
from nacre.tiers.rung import Answer, open_rung, read_manifest

Rows = Sequence[Mapping[str, Any]]
CLASSIFY = {
    "train": [
        {"id": "1", "text": "where is my parcel", "label": "track"},
        {"id": "2", "text": "track my parcel please", "label": "track"},
        {"id": "3", "text": "我要退款", "label": "refund"},
        {"id": "4", "text": "i want a refund", "label": "refund"},
    ],
    "valid": [{"id": "5", "text": "parcel tracking", "label": "track"}, {"id": "6", "text": "退款", "label": "refund"}],
}
TAG = {
    "train": [
        {"id": "1", "tokens": ["Ann", "met", "Bob", "Lee"], "tags": ["B-PER", "O", "B-PER", "I-PER"]},
        {"id": "2", "tokens": ["may", "I"], "tags": ["O", "O"]},
        {"id": "3", "tokens": ["may", "went"], "tags": ["O", "O"]},
        {"id": "4", "tokens": ["may", "x"], "tags": ["B-PER", "O"]},
    ],
    "valid": [{"id": "5", "tokens": ["Bob", "Lee", "may"], "tags": ["B-PER", "I-PER", "O"]}],
}
GENERATE = {
    "train": [
        {"id": "1", "source": "good morning", "target": "早上好"},
        {"id": "2", "source": "thanks", "target": "谢谢"},
    ],
    "valid": [{"id": "3", "source": "good morning all", "target": "大家早上好"}],
}
RANK = {
    "train": [{"id": "1", "query": "退款", "relevant": ["a"]}],
    "valid": [
        {"id": "2", "query": "refund to card", "relevant": ["a"]},
        {"id": "3", "query": "包裹", "relevant": ["b"]},
    ],
    "corpus": [
        {"id": "a", "text": "退款 refund to the card"},
        {"id": "b", "text": "包裹 parcel"},
        {"id": "c", "text": "x"},
    ],
}


def _task(folder: Path, kind: str, metric: str, rows: Mapping[str, Rows], labels: Sequence[str] = ()) -> Path:
    folder.mkdir()
    plain = {
        "name": "t", "kind": kind, "about": "", "metric": metric, "language": "en", "labels": list(labels),
        "target_language": "zh" if kind == "generate" else "", "descriptions": {}, "languages": ["en", "zh"],
    }  # fmt: skip
    (folder / "task.json").write_text(json.dumps(plain))
    for split, some in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def _solve(tmp_path: Path, task: Path, engine: Mapping[str, Any] | None = None, **config: Any) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"task": task}
    if engine is not None:
        inputs["engine"] = tmp_path / "engine"
        inputs["engine"].mkdir()
        (inputs["engine"] / "engine.json").write_text(json.dumps({"engine": "echo", **engine}))
    solve(RetrievalConfig(**config), Work(inputs, out, tmp_path, engines=EngineRoom(through_http=False)))
    return out


def _answers(folder: Path, rows: Rows) -> list[Answer]:
    with closing(open_rung(folder, EngineRoom(through_http=False))) as rung:
        return rung.answer(rows)


@pytest.mark.parametrize("engine", [None, {}])
def test_classify_cites_its_neighbours(tmp_path: Path, engine: Mapping[str, Any] | None) -> None:
    task = _task(tmp_path / "task", "classify", "accuracy", CLASSIFY, ["refund", "track"])
    out = _solve(tmp_path, task, engine, demonstrations=())
    found = _answers(out, [{"text": "where is the parcel"}, {"text": "请退款"}])
    assert [one.value for one in found] == ["track", "refund"]
    assert all(one.citations and one.citations[0].source.startswith(("train/", "valid/")) for one in found)
    manifest = read_manifest(out)
    called = manifest.how["mode"] == "dense"
    assert manifest.owns["index"] == manifest.owns["data"] == "own"
    assert manifest.owns["kernel"] == ("called" if called else "none")
    assert (out / "engine").is_dir() == called


def test_no_neighbour_is_no_answer(tmp_path: Path) -> None:
    task = _task(tmp_path / "task", "classify", "accuracy", CLASSIFY, ["refund", "track"])
    (found,) = _answers(_solve(tmp_path, task), [{"text": "zzz"}])
    assert (found.value, found.problem, found.citations) == (None, "no_neighbour", ())


def test_validation_rows_are_judged_without_being_looked_up(tmp_path: Path) -> None:
    rows = {"train": CLASSIFY["train"], "valid": [{"id": "9", "text": "where is my parcel", "label": "refund"}]}
    task = _task(tmp_path / "task", "classify", "accuracy", rows, ["refund", "track"])
    out = _solve(tmp_path, task, neighbours=(1,))
    choices = json.loads((out / "choices.json").read_text())
    assert set(choices["tried_on_valid"].values()) == {0.0}


def test_an_engine_that_writes_is_tried_with_demonstrations(tmp_path: Path) -> None:
    task = _task(tmp_path / "task", "classify", "accuracy", CLASSIFY, ["refund", "track"])
    out = _solve(tmp_path, task, {}, demonstrations=(2,))
    tried = json.loads((out / "choices.json").read_text())["tried_on_valid"]
    assert any("nearest rows as examples" in name for name in tried)
    assert len(_answers(out, [{"text": "parcel"}])) == 1


def test_tag_by_a_gazetteer(tmp_path: Path) -> None:
    task = _task(tmp_path / "task", "tag", "entity_f1", TAG, ["B-PER", "I-PER", "O"])
    out = _solve(tmp_path, task)
    (found,) = _answers(out, [{"tokens": ["Bob", "Lee", "and", "Ann", "may"]}])
    assert found.value == ["B-PER", "I-PER", "O", "B-PER", "O"]
    assert [one.source for one in found.citations] == ["1", "1"]


def test_a_gazetteer_keeps_what_is_mostly_an_entity() -> None:
    learned = Gazetteer.learn(TAG["train"])
    assert {one.words: round(one.precision, 2) for one in learned.entries} == {
        ("Ann",): 1.0,
        ("Bob", "Lee"): 1.0,
        ("may",): 0.33,
    }
    assert [one.words for one in learned.above(0.5).entries] == [("Ann",), ("Bob", "Lee")]


def test_generate_remembers(tmp_path: Path) -> None:
    out = _solve(tmp_path, _task(tmp_path / "task", "generate", "chrf", GENERATE))
    (found,) = _answers(out, [{"source": "many thanks"}])
    assert (found.value, found.citations[0].text) == ("谢谢", "thanks")


@pytest.mark.parametrize("engine", [None, {}])
def test_rank_names_documents(tmp_path: Path, engine: Mapping[str, Any] | None) -> None:
    out = _solve(tmp_path, _task(tmp_path / "task", "rank", "ndcg@10", RANK), engine)
    found = _answers(out, [{"query": "退款到卡"}, {"query": "parcel"}])
    assert [one.value[0] for one in found] == ["a", "b"]
    assert found[0].citations[0].source == "a"
    assert all(len(set(one.value)) == len(one.value) for one in found)


def test_reordering_is_kept_only_where_it_helps(tmp_path: Path) -> None:
    out = _solve(tmp_path, _task(tmp_path / "task", "rank", "ndcg@10", RANK), {}, rerank=2)
    tried = json.loads((out / "choices.json").read_text())["tried_on_valid"]
    assert any("reordered" in name for name in tried)
    assert "rerank" not in read_manifest(out).how  # two queries prove nothing


def test_nothing_to_look_up(tmp_path: Path) -> None:
    task = _task(tmp_path / "task", "classify", "accuracy", {}, ["a"])
    with pytest.raises(DataError, match="nothing to look up"):
        _solve(tmp_path, task)


def test_the_same_task_gives_the_same_bytes(tmp_path: Path) -> None:
    task = _task(tmp_path / "task", "classify", "accuracy", CLASSIFY, ["refund", "track"])
    first = {one.name: one.read_bytes() for one in _solve(tmp_path, task).rglob("*") if one.is_file()}
    (tmp_path / "out").rename(tmp_path / "first")
    second = {one.name: one.read_bytes() for one in _solve(tmp_path, task).rglob("*") if one.is_file()}
    assert first == second


def test_votes() -> None:
    hits = [Hit(str(n), 0, 1, "", score, "dense", fields={"label": label}) for n, (score, label) in enumerate(
        [(0.9, "a"), (0.6, "b"), (0.6, "b"), (0.5, "c")])]  # fmt: skip
    assert next(iter(shares(hits, Vote(3, "uniform", "dense")))) == "b"
    assert next(iter(shares(hits, Vote(3, "similarity", "dense")))) == "a"
    assert next(iter(shares(hits, Vote(2, "uniform", "dense")))) == "a"  # a tie goes to the nearest
    assert sum(shares(hits, Vote(4, "similarity", "dense")).values()) == pytest.approx(1)
