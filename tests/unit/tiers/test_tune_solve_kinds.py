"""Tier 4 on tasks other than classification: tags, written answers, ranked documents."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tune_tasks import base_model, make_task

from nacre.errors import CheckpointError
from nacre.kernel.adapters.config import LoraConfig
from nacre.recipe import catalogue
from nacre.recipe.stage import Work
from nacre.tiers.rung import open_rung, read_manifest
from nacre.tiers.task import load
from nacre.tiers.tune.stages import SolveConfig

LORA = LoraConfig(4, 8.0, 0.0, ("attention.*", "ffn.*"))
NAMES = ("Ada", "Berta", "Carla", "Doris", "Elsa", "Frida", "王芳", "李娜", "张敏", "刘洋")
CITIES = ("Paris", "Rome", "Oslo", "Bern", "Lima", "Kyiv", "北京", "上海", "广州", "成都")


def tagged() -> list[dict[str, Any]]:
    """Names and cities in sentences of both languages; Chinese by character."""
    rows = []
    for number, (name, city) in enumerate([(a, b) for a in NAMES for b in CITIES]):
        words = [(name, "PER"), ("lives", ""), ("in", ""), (city, "LOC"), (".", "")]
        if number % 2:
            words = [(name, "PER"), ("住", ""), ("在", ""), (city, "LOC"), ("。", "")]
        tokens: list[str] = []
        tags: list[str] = []
        for word, kind in words:
            pieces = list(word) if "\u4e00" <= word[0] <= "\u9fff" else [word]
            tokens += pieces
            tags += [f"{'B' if not at else 'I'}-{kind}" if kind else "O" for at in range(len(pieces))]
        rows.append({"id": f"t{number}", "tokens": tokens, "tags": tags})
    return rows


def translated() -> list[dict[str, Any]]:
    days = {"Monday": "星期一", "Tuesday": "星期二", "Friday": "星期五", "Sunday": "星期天"}
    rooms = {"kitchen": "厨房", "garden": "花园", "office": "办公室"}
    both = [(f"{day} in the {room}", f"{days[day]}在{rooms[room]}") for day in days for room in rooms]
    return [{"id": f"g{number}", "source": source, "target": target} for number, (source, target) in enumerate(both)]


def asked() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Questions in two languages about articles, some of which answer two of them."""
    topics = [*zip(NAMES, CITIES, strict=True)]
    corpus = [{"id": f"d{at}", "text": f"{name} {city} {name}"} for at, (name, city) in enumerate(topics)]
    queries = [
        {"id": f"q{at}", "query": f"where is {name}", "relevant": [f"d{at}"]} for at, (name, _) in enumerate(topics)
    ]
    queries += [{"id": f"z{at}", "query": f"{city}有谁", "relevant": [f"d{at}"]} for at, (_, city) in enumerate(topics)]
    return queries, corpus


def solve(place: Path, task: Path, base: Path, **config: Any) -> tuple[Path, Any]:
    (place / "out").mkdir(parents=True)
    work = Work({"task": task, "base": base}, place / "out", place / "scratch", seed=0)
    return work.out, catalogue.find("tune.solve")(SolveConfig(**config), work)


def same_alone(rung: Path, rows: Any) -> list[Any]:
    """The answers to all rows; the first ones are the same alone."""
    with closing(open_rung(rung)) as opened:
        together = opened.answer(rows)
        for row, answer in zip(rows[:4], together, strict=False):
            alone = opened.answer([row])[0]
            assert alone.value == answer.value
            assert np.allclose(list(alone.scores.values()), list(answer.scores.values()), atol=1e-5)
    return [answer.value for answer in together]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_tags_are_learnt_in_both_languages(method: Any, tmp_path: Path) -> None:
    rows = tagged()
    folder = make_task(tmp_path / "task", "tag", rows[::2] + rows[1::4], rows[3::4])
    base = base_model(tmp_path / "base", "bert", [" ".join(row["tokens"]) for row in rows])
    out, figures = solve(
        tmp_path / "work", folder, base, methods=(method,), learning_rates=(5e-3,), lora_rates=(2e-2,), epochs=8,
        batch_size=8, lora=LORA,
    )  # fmt: skip
    task = load(folder)
    values = same_alone(out, task.valid)
    score = task.quality.judge(task.valid, values).score
    assert score == pytest.approx(figures[f"valid_{method}"], abs=1e-6)
    assert score > 0.6
    assert all(len(value) == len(row["tokens"]) for value, row in zip(values, task.valid, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_texts_are_written_by_decoders_and_encoder_decoders(family: str, tmp_path: Path) -> None:
    rows = translated()
    folder = make_task(tmp_path / "task", "generate", rows, rows, target_language="zh")
    texts = [text for row in rows for text in (row["source"], row["target"])]
    base = base_model(tmp_path / "base", family, texts)
    out, figures = solve(
        tmp_path / "work", folder, base, methods=("full",), learning_rates=(1e-2,), epochs=40, batch_size=4,
        context=24, target_context=16, patience=20,
    )  # fmt: skip
    task = load(folder)
    score = task.quality.judge(task.valid, same_alone(out, task.valid)).score
    assert score == pytest.approx(figures["valid_full"], abs=1e-6)
    assert score > 0.5
    assert read_manifest(out).how["target_context"] <= 16


@pytest.mark.parametrize("method", ["frozen", "full", "lora"])
def test_documents_are_ranked_by_embeddings_trained_by_contrast(method: Any, tmp_path: Path) -> None:
    queries, corpus = asked()
    folder = make_task(tmp_path / "task", "rank", queries, queries, corpus=corpus)
    base = base_model(tmp_path / "base", "bert", [row["text"] for row in corpus] + [row["query"] for row in queries])
    out, figures = solve(
        tmp_path / "work", folder, base, methods=(method,), learning_rates=(3e-3,), lora_rates=(2e-2,), epochs=20,
        batch_size=10, lora=LORA, patience=20,
    )  # fmt: skip
    task, manifest = load(folder), read_manifest(out)
    values = same_alone(out, task.valid)
    assert all(sorted(value) == sorted(row["id"] for row in corpus) for value in values)
    score = task.quality.judge(task.valid, values).score
    assert score == pytest.approx(figures[f"valid_{method}"], abs=1e-6)
    if method == "frozen":
        assert manifest.trained_parameters == 0
        assert manifest.owns["weights"] == "borrowed"
    else:
        assert score > 0.8
        assert manifest.owns["weights"] == "own"
    assert json.loads((out / "choices.json").read_text())["chosen"].startswith(method)
    (out / "corpus.json").write_text('["d0"]')
    with pytest.raises(CheckpointError, match="1 ids"):
        open_rung(out)
