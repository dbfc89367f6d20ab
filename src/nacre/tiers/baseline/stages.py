"""Stages of tier 0. Light: scikit-learn is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError, DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage


@dataclass(frozen=True)
class BaselineConfig:
    """TF-IDF with a linear model.

    `units`: n-grams of words, of characters, or both; `auto` takes characters where the training texts are Chinese
    (which has no blanks between words), else both, and reports its choice. `solver`: `svm` is LinearSVC, `logistic`
    gives probabilities. `candidates`: values of the inverse regularisation C, of which validation accuracy picks one.
    `refit`: fit once more on training and validation rows together, with the C that was picked.
    """

    units: Literal["auto", "words", "characters", "both"] = "auto"
    solver: Literal["svm", "logistic"] = "svm"
    candidates: tuple[float, ...] = (0.3, 1.0, 3.0)
    max_features: int = 50_000
    refit: bool = False
    split: str = "test"

    def __post_init__(self) -> None:
        if not self.candidates or min(self.candidates) <= 0:
            raise ConfigError(f"candidates are {self.candidates}", remedy="give one or more values above 0")
        if self.max_features < 1:
            raise ConfigError(f"max_features is {self.max_features}", remedy="give 1 or more")


def _check_splits(config: BaselineConfig, inputs: Mapping[str, Path]) -> None:
    data = inputs.get("data")
    for split in ("train", config.split):
        if data is not None and not (data / f"{split}.jsonl").is_file():
            raise DataError(f"{data} holds no {split}.jsonl", remedy="give the artifact of a data.* stage")


@stage(
    "baseline.classify",
    produces="predictions",
    inputs={"data": Input("dataset", "trained_on")},
    check=_check_splits,
)
def classify(config: BaselineConfig, work: Work) -> Mapping[str, Scalar]:
    """The classical yardstick: TF-IDF with a linear model, fitted on train, C chosen on valid, predicting the split."""
    from nacre.tiers.baseline.worker import baseline_classify

    return baseline_classify(config, work)
