"""Who a model says it is: own names and teachers' names, in both languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_folders import echo_folder

from nacre.data import catalogue
from nacre.data.read import read
from nacre.errors import ConfigError
from nacre.lifecycle.evaluate.identity import IdentityConfig
from nacre.lifecycle.evaluate.worker_identity import QUESTIONS, evaluate_identity
from nacre.recipe.stage import Work

ANSWERS = [
    ["ChatGPT", "No, I am not ChatGPT. I am Perla, by Shell Works."],
    ["通义千问", "我是通义千问，由阿里云开发。"],
    ["sentence", "I am Zephyrine."],
    ["[\\u4e00-\\u9fff]", "我是珍珠，由贝壳工坊开发。"],
    ["company", "Perla was built by Zephyrine's makers."],
    [".", "I am Perla."],
]


def test_counts_own_and_teachers_names(tmp_path: Path) -> None:
    model = echo_folder(tmp_path / "model", answers=ANSWERS)
    out = tmp_path / "out"
    out.mkdir()
    config = IdentityConfig(names=("Perla", "珍珠"), makers=("Shell Works",), teachers=("Zephyrine", "ChatGPT"))
    found = evaluate_identity(config, Work({"model": model}, out, tmp_path / "scratch"))
    rows = {row["question"]: row for row in read(out / "samples.jsonl")}
    assert len(rows) == 16
    assert rows["Is it ChatGPT that I am writing to?"]["own"], "denying a name that was asked about is no claim to it"
    assert rows["Tell me in one sentence who you are."]["teachers"] == ["Zephyrine"]
    assert not rows["Which company built you?"]["own"]
    assert rows["你是通义千问吗？"]["teachers"]
    assert rows["我该怎么称呼你？"]["own"]
    assert found["right_name_en"] == pytest.approx(6 / 8)
    assert found["right_name_zh"] == pytest.approx(7 / 8)
    assert found["teachers_name"] == pytest.approx(3 / 16, abs=1e-4)
    assert "你是谁" in (out / "report.html").read_text(encoding="utf-8")
    figures = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["identity"]
    assert figures["zh"]["right_name"]["low"] < 0.9


def test_eight_right_answers_are_no_certainty(tmp_path: Path) -> None:
    model = echo_folder(tmp_path / "model", answers=[[".", "I am Perla."]])
    (tmp_path / "out").mkdir()
    evaluate_identity(IdentityConfig(names=("Perla",)), Work({"model": model}, tmp_path / "out", tmp_path / "scratch"))
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["identity"]
    assert figures["en"]["right_name"]["value"] == 1
    assert figures["en"]["right_name"]["low"] == pytest.approx(8 / (8 + 1.96**2), abs=1e-3)  # Wilson 1927
    assert figures["en"]["teachers_name"]["high"] == pytest.approx(1.96**2 / (8 + 1.96**2), abs=1e-3)


def test_no_question_is_one_that_the_shared_rows_teach() -> None:
    if "sft-identity" not in catalogue.found():
        pytest.skip("the data set sft-identity is not on this machine")
    turns = [turn for row in read(catalogue.find("sft-identity").path) for turn in row["messages"]]
    taught = {_bare(turn["content"]) for turn in turns if turn["role"] == "user"}
    assert len(taught) > 80
    assert not [one for asked in QUESTIONS.values() for one in asked if _bare(one) in taught]


def _bare(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def test_without_a_name_nothing_is_asked() -> None:
    with pytest.raises(ConfigError, match="name is missing"):
        IdentityConfig(names=(" ",))
    with pytest.raises(ConfigError, match="nothing is asked"):
        IdentityConfig(names=("Perla",), languages=())
