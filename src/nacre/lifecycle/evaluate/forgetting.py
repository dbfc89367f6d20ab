"""`evaluate.forgetting`: what a sequence of tasks left of the earlier ones. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError
from nacre.lifecycle.evaluate.stages import EvaluateConfig, check_split
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
STAGES = tuple(f"{name}_model" for name in ORDINALS)
TASKS = tuple(f"{name}_data" for name in ORDINALS)


@dataclass(frozen=True)
class ForgettingConfig(EvaluateConfig):
    """`answers`: after each stage the `latest` model answers all tasks so far, or each task's `own` does: that of its
    stage, as where each task has an adapter and one is told which to use."""

    answers: Literal["latest", "own"] = "latest"


def check_forgetting(config: ForgettingConfig, inputs: Mapping[str, Path]) -> None:
    """Every stage has its task, and every task the split."""
    for model, data in zip(STAGES, TASKS, strict=True):
        if (model in inputs) != (data in inputs):
            given, absent = (model, data) if model in inputs else (data, model)
            raise ConfigError(f"{given} is given and {absent} is not", remedy="give one task for each stage, in order")
        if data in inputs:
            check_split(config, {"data": inputs[data]})


@stage(
    "evaluate.forgetting",
    produces="report",
    inputs={name: Input("model", "evaluates", optional=index > 1) for index, name in enumerate(STAGES)}
    | {name: Input("dataset", "evaluated_on", optional=index > 1) for index, name in enumerate(TASKS)},
    check=check_forgetting,
)
def forgetting(config: ForgettingConfig, work: Work) -> Mapping[str, Scalar]:
    """Accuracy on every task after every stage, average accuracy, backward transfer and forgetting."""
    from nacre.lifecycle.evaluate.worker_forgetting import evaluate_forgetting

    return evaluate_forgetting(config, work)
