"""Robust tuning through the stages: what the wrapper is given, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from objective_kit import CHINESE, ENGLISH, kernel, tokenizer

from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.lineage.store import Store
from nacre.recipe import recipe, run
from nacre.train.objectives.config import AdversarialConfig, RDropConfig, RobustConfig

RECIPE = """
name: robust
steps:
  tuned:
    stage: tune.classify
    inputs: {{model: {model}, data: {data}}}
    config:
      train: {{max_steps: 4, batch_size: 4, micro_batch: 2, lr: 1.0e-3{train}}}
      objective: {{context: 32}}
      robust: {robust}
"""


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    model, data = tmp_path / "model", tmp_path / "data"
    hf.save(kernel("bert", "none", dropout=0.1), model)
    tokenizer("bert").save(model)
    data.mkdir()
    rows = [{"text": one, "label": name} for texts, name in ((ENGLISH, "en"), (CHINESE, "zh")) for one in texts]
    for part in ("train", "valid"):
        (data / f"{part}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (data / "labels.json").write_text('["en", "zh"]')
    return model, data


def ran(tmp_path: Path, parts: tuple[Path, Path], robust: str, train: str = "") -> list[dict[str, float]]:
    file = tmp_path / "robust.yaml"
    file.write_text(RECIPE.format(model=parts[0], data=parts[1], robust=robust, train=train))
    store = Store(tmp_path / "store")
    run.run(recipe.load(file), store)
    history = json.loads((store.resolve("robust/tuned").path / "training.json").read_text())["history"]
    assert isinstance(history, list)
    return history


@pytest.mark.parametrize(
    "robust", ["{adversarial: {method: fgm}}", "{adversarial: {method: freelb, steps: 2}}", "{rdrop: {alpha: 1.0}}"]
)
def test_tunes_and_evaluates_the_plain_objective(tmp_path: Path, parts: tuple[Path, Path], robust: str) -> None:
    history = ran(tmp_path, parts, robust)
    validated = [row for row in history if "valid_loss" in row]
    assert validated
    assert "valid_accuracy" in validated[-1]
    assert "valid_adversarial_loss" not in validated[-1]


def test_what_cannot_be_meant_is_told_before_anything_runs(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="not compiled"):
        ran(tmp_path, parts, "{adversarial: {}}", ", compile: true")
    with pytest.raises(ConfigError, match="epsilon"):
        ran(tmp_path, parts, "{adversarial: {epsilon: 0.0}}")
    with pytest.raises(ConfigError, match="both"):
        RobustConfig(AdversarialConfig(), RDropConfig())
