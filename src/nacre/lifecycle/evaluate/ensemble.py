"""`evaluate.ensemble`: several classifiers as one. Light: torch and scikit-learn are imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from nacre.errors import ConfigError
from nacre.lifecycle.evaluate.stages import EvaluateConfig, check_split
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

MODELS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class EnsembleConfig(EvaluateConfig):
    """`stacking`: also a logistic regression over the members' log-probabilities, fitted on the split `validation` and
    never on the one that is measured; `inverse_penalty` is scikit-learn's C."""

    stacking: bool = True
    validation: str = "valid"
    inverse_penalty: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stacking and self.validation == self.split:
            raise ConfigError(
                f"stacking would be fitted on the split {self.split!r}, on which it is measured",
                remedy="give another split in `validation`, or stacking: false",
            )
        if not 0 < self.inverse_penalty < inf:
            raise ConfigError(f"inverse_penalty is {self.inverse_penalty}", remedy="give a number above 0")


def check_ensemble(config: EnsembleConfig, inputs: Mapping[str, Path]) -> None:
    """Both splits must be there before anything is loaded."""
    check_split(config, inputs)
    if config.stacking:
        check_split(replace(config, split=config.validation, stacking=False), inputs)


@stage(
    "evaluate.ensemble",
    produces="report",
    inputs={name: Input("model", "evaluates", optional=index > 1) for index, name in enumerate(MODELS)}
    | {"data": Input("dataset", "evaluated_on")},
    check=check_ensemble,
)
def ensemble(config: EnsembleConfig, work: Work) -> Mapping[str, Scalar]:
    """The averaged probabilities of two to six classifiers, and a stacking of them, beside each single one."""
    from nacre.lifecycle.evaluate.worker_ensemble import evaluate_ensemble

    return evaluate_ensemble(config, work)
