"""What an effort resolves to: methods, learning rates, rounds and epochs, all from the config and the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tune_tasks import base_model, desk_rows, make_task

from nacre.data.write import write_json
from nacre.errors import DataError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import LoraConfig
from nacre.recipe import catalogue
from nacre.recipe.stage import Work
from nacre.tiers.rung import read_manifest
from nacre.tiers.tune.effort import COST, EFFORTS, Candidate, Wishes, resolve
from nacre.tiers.tune.stages import SolveConfig, TuneClassifyConfig
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import ClassifyConfig

ROWS, BATCH = 10_000, 32


def plan(epoch_flops: float, effort: str = "normal", kind: Any = "classify", **wishes: Any) -> Any:
    return resolve(kind, ROWS, BATCH, epoch_flops, EFFORTS[effort], Wishes(**wishes))


def test_the_operations_of_the_whole_plan_stay_within_the_effort() -> None:
    effort = EFFORTS["thorough"]
    for forward in (1e10, 1e12, 3e12, 1e13):
        found = plan(forward, "thorough")
        spent = forward * found.frozen
        spent += sum(one.candidates * one.rows / ROWS * COST["full"] * forward for one in found.rounds)
        spent += max((COST[method] * forward * epochs for method, epochs in found.epochs.items()), default=0.0)
        assert spent <= effort.flops * 1.001
        sizes = [one.candidates for one in found.rounds]
        assert sizes == [8, 4, 2] or not sizes
        assert all(one.rows <= ROWS for one in found.rounds)


def test_what_one_pass_would_overspend_is_left_out_and_said() -> None:
    found = plan(1e12, "quick")
    assert found.frozen
    assert not found.candidates
    assert "3e+12 operations" in found.left_out["full"]


def test_something_is_trained_where_nothing_else_solves_the_task() -> None:
    found = plan(1e13, "quick", kind="tag")
    assert [one.method for one in found.candidates] == ["full"]
    assert BATCH / ROWS <= found.epochs["full"] < 1


def test_wishes_overrule_the_effort() -> None:
    found = plan(1e14, "quick", methods=("lora",), epochs=2.0, learning_rates={"lora": (1e-3, 2e-3)}, search=0.0)
    assert not found.frozen
    assert found.candidates == (Candidate("lora", 1e-3),)  # two cannot be compared without a search
    assert found.epochs == {"lora": 2.0}
    assert plan(1e9, methods=("full",)).candidates == (Candidate("full", 2e-4), Candidate("full", 4e-4))


def test_of_equal_scores_the_cheaper_comes_first() -> None:
    methods = [one.method for one in plan(1e10, "thorough").candidates]
    assert methods == ["lora"] * 4 + ["full"] * 4


def work_in(place: Path, **inputs: Path) -> Work:
    (place / "out").mkdir(parents=True)
    return Work(inputs, place / "out", place / "scratch")


def test_without_validation_rows_the_cheapest_is_kept(tmp_path: Path) -> None:
    rows, _ = desk_rows(intents=2, per_intent=6)
    base = base_model(tmp_path / "base", "bert", [row["text"] for row in rows])
    work = work_in(tmp_path / "work", task=make_task(tmp_path / "task", "classify", rows, []), base=base)
    figures = catalogue.find("tune.solve")(SolveConfig(effort="normal"), work)
    assert figures["method"] == "frozen"
    assert figures["trials"] == 1
    assert read_manifest(work.out).solver.endswith("logistic regression")


def test_tasks_without_rows_or_corpus_are_told(tmp_path: Path) -> None:
    rows = [{"id": "q", "query": "where", "relevant": ["d"]}]
    base = base_model(tmp_path / "base", "bert", ["where is it", "here"])
    solve = catalogue.find("tune.solve")
    for name, given, said in (("a", rows, "no corpus"), ("b", [], "the file is empty")):
        task = make_task(tmp_path / f"task-{name}", "rank", given, rows)
        with pytest.raises(DataError, match=said):
            solve(SolveConfig(), work_in(tmp_path / name, task=task, base=base))


def test_the_tuning_stages_take_adapters(tmp_path: Path) -> None:
    rows, _ = desk_rows(intents=2, per_intent=6)
    base = base_model(tmp_path / "base", "bert", [row["text"] for row in rows])
    data = make_task(tmp_path / "data", "classify", rows, rows)
    write_json(data / "labels.json", sorted({row["label"] for row in rows}))
    work = work_in(tmp_path / "work", model=base, data=data)
    config = TuneClassifyConfig(
        objective=ClassifyConfig(context=48), train=TrainConfig(epochs=1, lr=1e-2), lora=LoraConfig(rank=2)
    )
    catalogue.find("tune.classify")(config, work)
    merged = hf.load(work.out)
    again = hf.load(base).with_head("classify", labels=merged.config.labels, pooling="mean")
    assert len(peft.load(again, work.out / "adapter")) == 4
    adapted.fold(again)
    assert all(one.allclose(again.state_dict()[name], atol=1e-6) for name, one in merged.state_dict().items())
