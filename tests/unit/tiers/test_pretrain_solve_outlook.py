"""What `nacre plan` says of pretraining before it runs: parameters, tokens, FLOPs, time, money, and what is unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nacre.cli.main import main
from nacre.data.write import write_json, write_jsonl
from nacre.kernel.anatomy import anatomy
from nacre.kernel.presets import preset

SIZES = {"hidden_size": 64, "layers": 1, "heads": 2, "max_positions": 64}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that pretrains a small BERT on 100,000 bytes of text."""
    write_jsonl(tmp_path / "text" / "train.jsonl", [{"text": "x" * 88}] * 1000)
    steps: dict[str, Any] = {
        "words": {
            "stage": "tokenizer.train",
            "inputs": {"data": "text"},
            "config": {"algorithm": "wordpiece", "style": "bert", "vocab_size": 600},
        },
        "start": {
            "stage": "kernel.initialise",
            "inputs": {"tokenizer": "words"},
            "config": {"preset": "bert", "choices": SIZES},
        },
        "learn": {
            "stage": "pretrain.mlm",
            "inputs": {"model": "start", "data": "text"},
            "config": {"objective": {"context": 32}, "train": {"epochs": 2.0}},
        },
    }
    return save(tmp_path / "r.yaml", steps)


def save(path: Path, steps: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"name": "pico", "seed": 1, "steps": steps}, sort_keys=False), encoding="utf-8")
    return path


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == 0
    plain: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plain


def test_parameters_and_operations_are_those_of_the_kernel_to_be(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = planned(capsys, str(recipe))["pretraining"]
    kernel = anatomy(preset("bert", **SIZES, vocab_size=600), 32)
    n_bytes = (recipe.parent / "text" / "train.jsonl").stat().st_size
    assert found["parameters"] == kernel.total_parameters
    assert found["tokens"] == round(2 * n_bytes / 4)
    assert found["flops"] == pytest.approx(3 * sum(kernel.flops_per_token.values()) * found["tokens"])
    assert found["basis"].startswith("estimated: 2 passes")
    assert "lower bounds" in found["caution"]


def test_time_and_money_on_named_hardware_and_unknown_prices(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("mine: {title: mine, peak_tflops: {float32: 0.001}, utilisation: 0.5, price_per_hour: 3600}\n")
    words = [str(recipe), "--hardware", "mine", "--hardware", "cpu-2-cores", "--hardware-file", str(own)]
    (found,) = planned(capsys, *words)["pretraining"]
    mine, cpu = found["on"]
    assert mine["hours"] * 3600 == pytest.approx(found["flops"] / 5e8)
    assert mine["money"] == pytest.approx(mine["hours"] * 3600)
    assert cpu["money"] is None
    assert main(["plan", *words]) == 0
    shown = capsys.readouterr().out
    assert "unknown" in shown
    assert "editable" in shown


def test_a_budget_is_answered_with_a_size_and_its_limit(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(recipe), "--hardware", "h100", "--budget", "1h"]
    (found,) = planned(capsys, *words)["pretraining"]
    assert found["budget"]["given"] == "1h"
    assert found["budget"]["h100"]["bound"] == "floor"  # 100 kB of text
    assert main(["plan", *words]) == 0
    assert "the floor decides" in capsys.readouterr().out


def test_steps_bound_what_is_trained(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "learn.train.max_steps=10", "--set", "learn.train.batch_size=8"]
    (found,) = planned(capsys, str(recipe), *words)["pretraining"]
    assert found["tokens"] == 10 * 8 * 32
    assert found["basis"].startswith("at most: 10 steps")


def test_an_unknown_machine_and_a_wrong_budget_are_usage_errors(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(recipe), "--hardware", "h10"]) == 2
    assert "'h100'" in capsys.readouterr().err
    assert main(["plan", str(recipe), "--budget", "lots"]) == 2
    assert "is no budget" in capsys.readouterr().err


def test_a_recipe_without_pretraining_says_nothing_of_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = yaml.safe_load(recipe.read_text(encoding="utf-8"))["steps"]
    other = save(tmp_path / "other.yaml", {"words": steps["words"]})
    assert "pretraining" not in planned(capsys, str(other))
    assert main(["plan", str(other), "--hardware", "h100"]) == 0
    assert "nothing to size" in capsys.readouterr().err


def test_a_solvers_budget_is_priced_before_its_size_is_known_and_both_once_its_task_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task"
    plain = {"name": "t", "kind": "classify", "about": "", "metric": "accuracy", "language": "en"}
    write_json(
        task / "task.json", plain | {"target_language": "", "labels": ["a", "b"], "descriptions": {}, "languages": []}
    )
    write_jsonl(task / "train.jsonl", [{"text": "some text", "label": "a"}] * 100)
    steps = {"own": {"stage": "pretrain.solve", "inputs": {"task": str(task)}, "config": {"effort": "quick"}}}
    (found,) = planned(capsys, str(save(tmp_path / "r.yaml", steps)))["pretraining"]
    assert found["flops"] == 1.2e12
    assert found["parameters"] > 0
    assert "the floor decides" in found["basis"]
    (task / "task.json").unlink()
    (unknown,) = planned(capsys, str(tmp_path / "r.yaml"))["pretraining"]
    assert (unknown["flops"], unknown["parameters"]) == (1.2e12, None)
    assert unknown["on"][0]["hours"] > 0
