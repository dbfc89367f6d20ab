"""Who a model says it is: own names and teachers' names, in both languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_folders import echo_folder

from nacre.data.read import read
from nacre.errors import ConfigError
from nacre.lifecycle.evaluate.identity import IdentityConfig
from nacre.lifecycle.evaluate.worker_identity import evaluate_identity
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
    assert rows["Are you ChatGPT?"]["own"], "denying a name that was asked about is no claim to it"
    assert rows["Tell me in one sentence who you are."]["teachers"] == ["Zephyrine"]
    assert not rows["Which company built you?"]["own"]
    assert rows["你是通义千问吗？"]["teachers"]
    assert rows["我该怎么称呼你？"]["own"]
    assert found["right_name_en"] == pytest.approx(6 / 8)
    assert found["right_name_zh"] == pytest.approx(7 / 8)
    assert found["teachers_name"] == pytest.approx(3 / 16, abs=1e-4)
    assert "你是谁" in (out / "report.html").read_text(encoding="utf-8")
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["identity"]["zh"]["right_name"]["low"] < 0.9


def test_without_a_name_nothing_is_asked() -> None:
    with pytest.raises(ConfigError, match="name is missing"):
        IdentityConfig(names=(" ",))
    with pytest.raises(ConfigError, match="nothing is asked"):
        IdentityConfig(names=("Perla",), languages=())
