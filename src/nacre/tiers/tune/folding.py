"""`tune.crossvalidate`: how well a config tunes, without a test split. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Work, stage
from nacre.tiers.tune.stages import TUNED, TuneClassifyConfig, check_tuned


@dataclass(frozen=True)
class CrossvalidateConfig:
    """`folds`: parts of the training rows; each is predicted by a model tuned as `tune` says on the others.
    `level` of the intervals over the folds."""

    folds: int = 5
    tune: TuneClassifyConfig = field(default_factory=TuneClassifyConfig)
    level: float = 0.95
    batch: int = 32

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= 50:
            raise ConfigError(f"folds is {self.folds}", remedy="give 2 to 50; 5 or 10 are customary")
        if not 0 < self.level < 1:
            raise ConfigError(f"level is {self.level}", remedy="give a share between 0 and 1, 0.95 as a rule")
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}", remedy="give 1 or more")


def check_crossvalidate(config: CrossvalidateConfig, inputs: Mapping[str, Path]) -> None:
    """What `tune.classify` would refuse."""
    check_tuned(config.tune, inputs)


@stage("tune.crossvalidate", produces="predictions", inputs=TUNED, check=check_crossvalidate)
def crossvalidate(config: CrossvalidateConfig, work: Work) -> Mapping[str, Scalar]:
    """Out-of-fold predictions of the training rows, and accuracy and macro F1 over stratified folds."""
    from nacre.tiers.tune.folding_worker import crossvalidate_classifier

    return crossvalidate_classifier(config, work)
