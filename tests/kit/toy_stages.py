"""Stages that take milliseconds and behave like real ones: drop rows, train in resumable steps, measure."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from nacre.errors import DataError
from nacre.recipe import catalogue
from nacre.recipe.stage import Input, Work, stage

RECIPE = """\
name: toy
seed: 7
about: 一个小小的例子, three steps
steps:
  clean:
    stage: toy.clean
    inputs: {source: raw.txt}
  train:
    stage: toy.train
    inputs: {data: clean}
    config: {steps: 6, lr: 2e-4}
  measure:
    stage: toy.measure
    inputs: {model: train, data: clean}
"""


@dataclass(frozen=True)
class CleanConfig:
    min_chars: int = 3


@dataclass(frozen=True)
class Optimiser:
    name: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9


@dataclass(frozen=True)
class TrainConfig:
    lr: float
    steps: int = 4
    pause_s: float = 0.0
    optimiser: Optimiser = Optimiser()


@dataclass(frozen=True)
class MeasureConfig:
    digits: int = 3


@stage("toy.clean", produces="dataset", inputs={"source": Input("dataset", "made_from")})
def clean(config: CleanConfig, work: Work) -> dict[str, int]:
    """Keeps the lines that are long enough."""
    lines = work.inputs["source"].read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if len(line) >= config.min_chars]
    with (work.out / "train.jsonl").open("w", encoding="utf-8") as file:
        for line in kept:
            file.write(json.dumps({"text": line}, ensure_ascii=False) + "\n")
    (work.out / "report.json").write_text(json.dumps({"rows_in": len(lines), "rows_out": len(kept)}))
    return {"rows": len(kept)}


def check_train(config: TrainConfig, inputs: Mapping[str, Path]) -> None:
    if "data" in inputs and not (inputs["data"] / "train.jsonl").read_text().strip():
        raise DataError(f"{inputs['data']} holds no rows", remedy="lower min_chars")


@stage("toy.train", produces="model", inputs={"data": Input("dataset", "trained_on")}, check=check_train)
def train(config: TrainConfig, work: Work) -> dict[str, float]:
    """Hashes its data again and again, with a checkpoint after every step."""
    checkpoint = work.scratch / "state.json"
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "weights": f"seed {work.seed}"}
    data = (work.inputs["data"] / "train.jsonl").read_bytes()
    while state["step"] < config.steps:
        time.sleep(config.pause_s)
        mixed = hashlib.sha256(data + f"{state['weights']} {config.lr}".encode())
        state = {"step": state["step"] + 1, "weights": mixed.hexdigest()}
        part = work.scratch / "state.part"
        part.write_text(json.dumps(state))
        part.replace(checkpoint)
        work.progress.update(state["step"], config.steps, loss=1 / state["step"])
    (work.out / "weights").mkdir()
    for index in range(3):
        (work.out / "weights" / f"part-{index}.bin").write_bytes(state["weights"].encode() * (index + 1))
    work.spent(tokens=config.steps * 10, flops=1e3)
    return {"loss": 1 / config.steps}


@stage(
    "toy.measure",
    produces="report",
    inputs={
        "model": Input("model", "evaluates"),
        "data": Input("dataset", "evaluated_on"),
        "rival": Input("model", "evaluates", optional=True),
    },
)
def measure(config: MeasureConfig, work: Work) -> dict[str, float]:
    """Scores a model by its first byte."""
    score = round((work.inputs["model"] / "weights" / "part-0.bin").read_bytes()[0] / 256, config.digits)
    (work.out / "metrics.json").write_text(json.dumps({"score": score}))
    return {"score": score}


TABLE = {"toy.clean": "toy_stages:clean", "toy.train": "toy_stages:train", "toy.measure": "toy_stages:measure"}


def register() -> None:
    """Adds the toy stages to the catalogue of this process."""
    catalogue.STAGES.update(TABLE)


@pytest.fixture
def toy_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `toy.yaml` and its raw text; the toy stages are in the catalogue."""
    for name, target in TABLE.items():
        monkeypatch.setitem(catalogue.STAGES, name, target)
    return write_toy(tmp_path / "toy")


def write_toy(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "raw.txt").write_text("hello world\n你好世界\nno\nthree words here\n", encoding="utf-8")
    return folder
