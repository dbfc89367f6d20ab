"""`tune.average`: one model out of several of one shape. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError, DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

MODELS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@dataclass(frozen=True)
class AverageConfig:
    """`uniform`: the mean of the weights. `weighted`: with `weights`, one per model, scaled to a sum of 1. `greedy`
    (Wortsman et al. 2022, algorithm 1): from the best model down, each is kept that does not worsen `metric` on the
    validation split of `data`; `mode` says which way is better, `context` how many tokens of a row are read."""

    how: Literal["uniform", "weighted", "greedy"] = "uniform"
    weights: tuple[float, ...] = ()
    metric: str = "accuracy"
    mode: Literal["max", "min"] = "max"
    context: int = 128
    batch: int = 32

    def __post_init__(self) -> None:
        if (self.how == "weighted") != bool(self.weights):
            raise ConfigError("`weights` and `how: weighted` go together", remedy="give both, or neither")
        if any(not 0 <= one < inf for one in self.weights) or (self.weights and not sum(self.weights) > 0):
            raise ConfigError(f"weights are {self.weights}", remedy="give numbers of 0 or more, one of them above 0")
        if self.context < 1 or self.batch < 1:
            raise ConfigError("context or batch is below 1", remedy="give 1 or more")


def check_average(config: AverageConfig, inputs: Mapping[str, Path]) -> None:
    """One weight for each model; validation rows for a choice."""
    given = [name for name in MODELS if name in inputs]
    if config.weights and len(config.weights) != len(given):
        raise ConfigError(f"{len(config.weights)} weights for {len(given)} models", remedy="give one weight per model")
    if config.how == "greedy":
        if "data" not in inputs:
            raise DataError("a greedy average is chosen on validation rows", remedy="give `data` with a valid.jsonl")
        if inputs["data"].is_dir() and not (inputs["data"] / "valid.jsonl").is_file():
            raise DataError(f"{inputs['data']} holds no valid.jsonl", remedy="prepare the data with a validation split")


@stage(
    "tune.average",
    produces="model",
    inputs={name: Input("model", "merged_from", optional=index > 1) for index, name in enumerate(MODELS)}
    | {"data": Input("dataset", "evaluated_on", optional=True)},
    check=check_average,
)
def average(config: AverageConfig, work: Work) -> Mapping[str, Scalar]:
    """One model whose weights are the mean of those of two to eight models of one shape (a weight soup)."""
    from nacre.tiers.tune.averaging_worker import average_models

    return average_models(config, work)
