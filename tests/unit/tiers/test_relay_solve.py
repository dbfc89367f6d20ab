"""The relay as a stage and as a rung: the way it takes, what it keeps, and that it answers from its folder alone."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asking_stub import WrittenEngine, classify_task, generate_task, rank_task, tag_task, write_task

from nacre.engine.protocol import Unsupported
from nacre.engine.room import Budget, EngineRoom
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.lineage.record import RELATIONS
from nacre.recipe import catalogue
from nacre.recipe.stage import Work
from nacre.tiers.relay.rung import CORPUS_FILE, VECTORS_FILE
from nacre.tiers.relay.stages import RelayConfig, solve
from nacre.tiers.relay.ways import way_for
from nacre.tiers.rung import open_rung, read_manifest
from nacre.tiers.task import Task

DESCRIPTIONS = {"refund": "money back", "card": "the card itself", "card_arrival": "when the new one comes"}
QUESTIONS = [
    {"text": "I want my money back", "label": "refund"},
    {"text": "when the new one comes", "label": "card_arrival"},
]
CORPUS = [
    {"id": "l1", "text": "theft of bicycles"},
    {"id": "l2", "text": "noise at night"},
    {"id": "l3", "text": "dogs"},
]


def echo(folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "engine.json").write_text(json.dumps({"engine": "echo", **settings}), encoding="utf-8")
    return folder


def work_of(tmp_path: Path, task: Task, engine: Path, room: EngineRoom | None = None, **rows: Any) -> Work:
    inputs = {"task": write_task(tmp_path / "task", task, **rows), "engine": engine}
    out = tmp_path / "rung"
    out.mkdir()
    return Work(inputs, out, tmp_path / "scratch", engines=room or EngineRoom(through_http=False))


def labels_of(rung: Path, rows: list[dict[str, Any]], room: EngineRoom | None = None) -> list[Any]:
    with closing(open_rung(rung, room or EngineRoom(through_http=False))) as opened:
        return [one.value for one in opened.answer(rows)]


def test_a_chat_engine_is_asked_in_words_and_the_rung_needs_nothing_but_its_folder(tmp_path: Path) -> None:
    engine = echo(tmp_path / "engine", pick_label=True)
    work = work_of(tmp_path, classify_task(descriptions=DESCRIPTIONS), engine, rows=QUESTIONS)
    metrics = solve(RelayConfig(), work)
    assert metrics == {"way": "chat", "engine": "echo", "served_by": "echo"}
    manifest = read_manifest(work.out)
    assert manifest.tier == "relay"
    assert manifest.solver == "echo: asked in words"
    assert manifest.owns == {"kernel": "called", "weights": "called", "data": "none", "prompt": "none", "index": "none"}
    moved = tmp_path / "elsewhere"
    shutil.move(work.out, moved)
    shutil.rmtree(tmp_path / "task")
    shutil.rmtree(engine)
    assert labels_of(moved, [{"text": one["text"]} for one in QUESTIONS]) == ["refund", "card_arrival"]


def test_the_same_config_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        engine = echo(tmp_path / name / "engine", can=["embed"])
        work = work_of(tmp_path / name, classify_task(descriptions=DESCRIPTIONS), engine, rows=QUESTIONS)
        solve(RelayConfig(), work)
        found.append({file.name: file.read_bytes() for file in work.out.rglob("*") if file.is_file()})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("can", "way"),
    [
        (["chat", "score", "embed"], "chat"),
        (["complete", "score"], "labels"),
        (["embed"], "similarity"),
        (["complete"], "chat"),
    ],
)
def test_auto_takes_what_the_engine_can_and_says_so(tmp_path: Path, can: list[str], way: str) -> None:
    work = work_of(tmp_path, classify_task(descriptions=DESCRIPTIONS), echo(tmp_path / "e", can=can, pick_label=True))
    assert solve(RelayConfig(), work)["way"] == way
    assert read_manifest(work.out).how["config"]["way"] == way
    assert (work.out / VECTORS_FILE).exists() == (way == "similarity")


def test_similarity_answers_with_the_nearest_label(tmp_path: Path) -> None:
    work = work_of(tmp_path, classify_task(descriptions=DESCRIPTIONS), echo(tmp_path / "e", can=["embed"]))
    metrics = solve(RelayConfig(), work)
    assert metrics["vectors"] == 3
    assert metrics["truncated_texts"] == 0
    assert labels_of(work.out, [{"text": one["text"]} for one in QUESTIONS]) == ["refund", "card_arrival"]


def test_a_chinese_task_goes_the_same_way(tmp_path: Path) -> None:
    labels = {"退款": "退钱到账", "物流": "包裹在哪里"}
    task = classify_task(labels=tuple(labels), descriptions=labels, language="zh", about="判断顾客的意图。")
    for way in ("chat", "similarity"):
        work = work_of(tmp_path / way, task, echo(tmp_path / way / "e", pick_label=True))
        solve(RelayConfig(way=way), work)  # type: ignore[arg-type]
        assert labels_of(work.out, [{"text": "我的包裹在哪里呀"}, {"text": "什么时候退钱"}]) == ["物流", "退款"]


def test_entities_and_texts_are_asked_in_words(tmp_path: Path) -> None:
    answers = [["Ann", '[{"type": "PER", "text": "Ann"}]'], [".", "[]"]]
    work = work_of(tmp_path / "tag", tag_task(), echo(tmp_path / "tag" / "e", answers=answers))
    solve(RelayConfig(), work)
    assert labels_of(work.out, [{"tokens": ["Ann", "left"]}, {"tokens": ["all"]}]) == [["B-PER", "O"], ["O"]]
    work = work_of(tmp_path / "mt", generate_task(), echo(tmp_path / "mt" / "e", answers=[["bonjour", "hello"]]))
    solve(RelayConfig(), work)
    assert labels_of(work.out, [{"source": "bonjour"}]) == ["hello"]


@pytest.mark.parametrize("task", [tag_task(), generate_task()])
def test_what_an_embedding_engine_cannot_do_is_said_with_a_remedy(tmp_path: Path, task: Task) -> None:
    work = work_of(tmp_path, task, echo(tmp_path / "e", can=["embed"]))
    with pytest.raises(Unsupported, match=f"only embeds: a task of the kind {task.kind}") as error:
        solve(RelayConfig(), work)
    assert "chat or complete" in error.value.remedy


def test_passages_are_ranked_by_nearness_where_the_engine_embeds(tmp_path: Path) -> None:
    work = work_of(tmp_path, rank_task(), echo(tmp_path / "e"), corpus=CORPUS)
    assert solve(RelayConfig(top=2), work)["way"] == "similarity"
    assert labels_of(work.out, [{"query": "noise by dogs at night"}])[0][0] == "l2"
    assert len(labels_of(work.out, [{"query": "bicycles"}])[0]) == 2


def test_a_small_corpus_is_ranked_in_words_as_a_whole(tmp_path: Path) -> None:
    work = work_of(tmp_path, rank_task(), echo(tmp_path / "e", can=["chat"], answers=[[".", "[2]"]]), corpus=CORPUS)
    assert solve(RelayConfig(), work)["way"] == "chat"
    shutil.rmtree(tmp_path / "task")
    assert (work.out / CORPUS_FILE).is_file()
    assert labels_of(work.out, [{"query": "x"}]) == [["l2", "l1", "l3"]]


def test_of_a_large_corpus_the_nearest_passages_are_ranked_in_words(tmp_path: Path) -> None:
    work = work_of(tmp_path, rank_task(), echo(tmp_path / "e", answers=[[".", "[2]"]]), corpus=CORPUS)
    solve(RelayConfig(way="chat", candidates=2), work)
    (value,) = labels_of(work.out, [{"query": "noise at night"}])
    assert value[1] == "l2"  # the nearest, which the model put second
    assert sorted(value) == ["l1", "l2", "l3"]


def test_a_large_corpus_without_an_embedding_is_said_to_be_too_large(tmp_path: Path) -> None:
    work = work_of(tmp_path, rank_task(), echo(tmp_path / "e", can=["chat"]), corpus=CORPUS)
    with pytest.raises(Unsupported, match="corpus of 3 passages"):
        solve(RelayConfig(candidates=2), work)


def test_a_way_that_the_kind_or_the_engine_does_not_have_is_refused(tmp_path: Path) -> None:
    stage = catalogue.find("relay.solve")
    assert stage.check is not None
    inputs = {"task": write_task(tmp_path / "task", tag_task())}
    with pytest.raises(ConfigError, match="kind tag cannot be asked by 'labels'"):
        stage.check(RelayConfig(way="labels"), inputs)
    stage.check(RelayConfig(), inputs)
    stage.check(RelayConfig(way="labels"), {})
    for way, verb in (("labels", "score"), ("similarity", "embed")):
        with pytest.raises(Unsupported, match=f"cannot {verb}"):
            way_for(way, "classify", WrittenEngine())  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="cannot chat"):
        way_for("auto", "classify", WrittenEngine(can=()))


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"candidates": 0}, {"temperature": 0.0}, {"max_tokens": -1}])
def test_settings_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RelayConfig(**wrong)


def test_a_row_of_another_kind_is_told_by_its_fields(tmp_path: Path) -> None:
    work = work_of(tmp_path, classify_task(descriptions=DESCRIPTIONS), echo(tmp_path / "e", pick_label=True))
    solve(RelayConfig(), work)
    with pytest.raises(DataError, match=r"row 2 has no text 'text'; it has: 'query'"):
        labels_of(work.out, [{"text": "x"}, {"query": "x"}])
    assert labels_of(work.out, []) == []


def test_what_was_answered_before_the_budget_ended_costs_nothing_again(tmp_path: Path) -> None:
    room = EngineRoom(cache=tmp_path / "cache", through_http=False)
    work = work_of(tmp_path, classify_task(descriptions=DESCRIPTIONS), echo(tmp_path / "e", pick_label=True), room)
    solve(RelayConfig(), work)
    rows = [{"text": f"money back for number {number}"} for number in range(5)]
    labels_of(work.out, rows, room)
    paid = room.spent.requests
    broke = EngineRoom(cache=tmp_path / "cache", through_http=False, budget=Budget(requests=0))
    assert labels_of(work.out, rows, broke) == ["refund"] * 5
    assert broke.spent.requests == 0
    assert paid > 0


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    work = work_of(tmp_path, classify_task(), echo(tmp_path / "e", pick_label=True))
    solve(RelayConfig(), work)
    rung = open_rung(work.out, EngineRoom(through_http=False))
    rung.close()
    rung.close()


def test_a_damaged_rung_is_told(tmp_path: Path) -> None:
    work = work_of(tmp_path, classify_task(), echo(tmp_path / "e", can=["embed"]))
    solve(RelayConfig(), work)
    (work.out / VECTORS_FILE).unlink()
    with pytest.raises(CheckpointError, match="no vectors"):
        open_rung(work.out)
    manifest = json.loads((work.out / "rung.json").read_text())
    for broken, error in (({}, CheckpointError), ({"task": manifest["how"]["task"]}, CheckpointError)):
        (work.out / "rung.json").write_text(json.dumps({**manifest, "how": broken}))
        with pytest.raises(error):
            open_rung(work.out)
    config = {**manifest["how"]["config"], "wya": "chat"}
    (work.out / "rung.json").write_text(json.dumps({**manifest, "how": {**manifest["how"], "config": config}}))
    with pytest.raises(ConfigError, match="unknown key 'wya'"):
        open_rung(work.out)


def test_the_stage_takes_any_engine_and_says_that_it_calls_it() -> None:
    inputs = catalogue.find("relay.solve").inputs
    assert (inputs["engine"].kind, inputs["engine"].relation) == ("any", "calls")
    assert inputs["task"].relation in RELATIONS
