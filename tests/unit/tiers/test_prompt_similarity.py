"""The search for a wording, for an engine that only embeds: chosen on validation rows, within its requests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking_stub import WrittenEngine, classify_task, rank_task, write_task
from prompt_stub import LABELS, TEXTS, echo, rows_of, task_folder, work_of

from nacre.data.write import write_jsonl
from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError
from nacre.tiers.prompt.stages import PromptConfig, solve
from nacre.tiers.rung import open_rung
from nacre.tiers.task import load as load_task

NEAR = {"refund": (1.0, 0.0, 0.0), "card": (0.0, 1.0, 0.0), "card_arrival": (0.0, 0.0, 1.0)}


def vector(text: str) -> Sequence[float]:
    """Training and validation texts lie at their label; names of labels lie at another one."""
    for label, kinds in TEXTS.items():
        if any(one.replace(" {}", "") in text for one in kinds):
            return NEAR[label]
    named = next((label for label in reversed(LABELS) if label.replace("_", " ") in text), "refund")
    return [0.2 * one for one in NEAR[LABELS[(LABELS.index(named) + 1) % 3]]]


def similarity_search(tmp_path: Path, engine: WrittenEngine, keep: bool = False, **settings: Any) -> Any:
    from nacre.tiers.prompt.wording_search import optimise_similarity

    task = load_task(task_folder(tmp_path / "task"))
    return optimise_similarity(engine, task, PromptConfig(**settings), 0, tmp_path if keep else None)


def test_examples_win_where_names_mislead(tmp_path: Path) -> None:
    engine = WrittenEngine(can=("embed",), vector=vector)
    found = similarity_search(tmp_path, engine)
    assert (found.default, found.score) == (0.0, 1.0)
    assert found.n_demonstrations > 0
    assert all("train" in text for texts in found.examples.values() for text in texts)
    assert found.log["not_tried"] == []
    assert len(engine.sizes) == found.log["requests"]["asked"] <= 400


def test_of_equal_wordings_the_shortest_wins(tmp_path: Path) -> None:
    found = similarity_search(tmp_path, WrittenEngine(can=("embed",), vector=lambda text: (1.0, 0.0)))
    assert found.winner == "default"
    assert found.examples == {}


@pytest.mark.parametrize("budget", [2, 3, 10])
def test_embedding_keeps_to_its_requests(tmp_path: Path, budget: int) -> None:
    engine = WrittenEngine(can=("embed",), vector=vector)
    found = similarity_search(tmp_path, engine, budget_requests=budget, batch=16, first_rows=2)
    assert len(engine.sizes) == found.log["requests"]["asked"] <= budget
    if budget == 2:
        assert found.log["not_tried"]


def test_too_few_requests_for_the_labels_are_told(tmp_path: Path) -> None:
    engine = WrittenEngine(can=("embed",), vector=vector)
    with pytest.raises(ConfigError, match="no 8 validation rows"):
        similarity_search(tmp_path, engine, budget_requests=8, batch=1)


def test_an_embedding_rung_answers_from_its_folder(tmp_path: Path) -> None:
    task, engine = task_folder(tmp_path / "task"), echo(tmp_path / "engine", can=["embed"])
    work = work_of(tmp_path, task, engine)
    metrics = solve(PromptConfig(), work)
    assert metrics["way"] == "similarity"
    assert float(str(metrics["valid_score"])) >= float(str(metrics["valid_default"]))
    moved = tmp_path / "elsewhere"
    shutil.move(work.out, moved)
    shutil.rmtree(task)
    room = EngineRoom(through_http=False)
    with closing(open_rung(moved, room)) as rung:
        answers = rung.answer(rows_of(12, "valid"))
    choices = json.loads((moved / "choices.json").read_text(encoding="utf-8"))
    right = sum(one.value == row["label"] for one, row in zip(answers, rows_of(12, "valid"), strict=True))
    assert right >= 9
    assert room.spent.requests == 1  # the rows: the labels' vectors are kept
    assert choices["candidates"][0]["name"] == choices["winner"]


def rank_folder(folder: Path) -> Path:
    corpus = [
        {"id": f"d{index}", "text": f"the law of {word}"} for index, word in enumerate(("dogs", "noise", "theft"))
    ]
    rows = [{"id": "q0", "query": "dogs", "relevant": ["d0"]}, {"id": "q1", "query": "theft", "relevant": ["d2"]}]
    made = write_task(folder, replace(rank_task(), about="Find the law."), rows=rows, corpus=corpus)
    write_jsonl(made / "train.jsonl", [{"id": "q9", "query": "noise", "relevant": ["d1"]}])
    return made


def test_prefixes_are_chosen_for_ranking(tmp_path: Path) -> None:
    from nacre.tiers.prompt.wording_search import optimise_similarity

    def vector(text: str) -> Sequence[float]:
        words = ("dogs", "noise", "theft")
        found = [float(word in text) for word in words]
        return found if text.startswith(("query: ", "the law")) else [1.0, 1.0, 0.9]

    task = load_task(rank_folder(tmp_path / "task"))
    engine = WrittenEngine(can=("embed",), vector=vector)
    found = optimise_similarity(engine, task, PromptConfig(), 0, None)
    assert found.winner == "query named"
    assert found.score == 1.0 > (found.default or 0)
    few = optimise_similarity(engine, task, PromptConfig(budget_requests=9, first_rows=2, batch=1), 0, None)
    assert few.log["not_tried"] == ["query and passage named"]
    with pytest.raises(ConfigError, match="take 5"):
        optimise_similarity(engine, task, PromptConfig(budget_requests=4, first_rows=2, batch=1), 0, None)


def test_a_ranking_rung_words_its_queries(tmp_path: Path) -> None:
    work = work_of(tmp_path, rank_folder(tmp_path / "task"), echo(tmp_path / "engine", can=["embed"]))
    solve(PromptConfig(), work)
    with closing(open_rung(work.out, EngineRoom(through_http=False))) as rung:
        assert rung.answer([{"query": "noise"}])[0].value[0] == "d1"


def test_chinese_labels_are_worded_in_chinese() -> None:
    from nacre.tiers.prompt.label_wording import label_wordings

    task = replace(classify_task(language="zh"), labels=("退款", "到账"), descriptions={"退款": "要求退回付款"})
    task.__dict__["train"] = ({"text": "把钱退给我", "label": "退款"},)
    worded = {one.name: one for one in label_wordings(task, (0, 1), 1, 0)}
    assert worded["default"].texts["退款"] == ("退款", "要求退回付款")
    assert worded["default"].texts["到账"] == ("到账",)
    assert worded["templates"].texts["退款"] == ("退款", "关于退款的文本", "这段话说的是退款。", "这属于退款一类。")
    assert worded["default + 1 examples"].texts["退款"] == ("退款", "要求退回付款", "把钱退给我")
