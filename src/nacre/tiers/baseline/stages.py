"""Stages of tier 0. Light: scikit-learn is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class ClassifyChoice:
    """TF-IDF with a linear SVM: as in `BaselineConfig`."""

    units: Literal["auto", "words", "characters", "both"] = "auto"
    candidates: tuple[float, ...] = (0.3, 1.0, 3.0)
    max_features: int = 50_000

    def __post_init__(self) -> None:
        BaselineConfig(self.units, "svm", self.candidates, self.max_features)


@dataclass(frozen=True)
class TagChoice:
    """`crf` tries every pair of `c1` (L1) and `c2` (L2) for at most `iterations` steps of L-BFGS; `majority` gives each
    token its commonest tag, and is never taken unless it is asked for."""

    solver: Literal["crf", "majority"] = "crf"
    c1: tuple[float, ...] = (0.1,)
    c2: tuple[float, ...] = (0.01, 0.1)
    iterations: int = 60

    def __post_init__(self) -> None:
        if not self.c1 or not self.c2 or min(*self.c1, *self.c2) < 0 or self.iterations < 1:
            raise ConfigError(
                f"tag: c1 {self.c1}, c2 {self.c2}, iterations {self.iterations}",
                remedy="give one or more values from 0 for c1 and c2, and 1 or more iterations",
            )


@dataclass(frozen=True)
class GenerateChoice:
    """`writers` to choose from: the first sentence (`lead`), the source (`copy`), the commonest target (`frequent`),
    the target of the nearest source (`memory`)."""

    writers: tuple[Literal["lead", "copy", "frequent", "memory"], ...] = ("lead", "copy", "frequent", "memory")
    max_features: int = 50_000

    def __post_init__(self) -> None:
        if not self.writers or self.max_features < 1:
            raise ConfigError("generate: no writers, or no features", remedy="name one writer, and 1 or more features")


@dataclass(frozen=True)
class RankChoice:
    """BM25: every pair of `k1` and `b` is tried. `depth`: how many ids are ranked."""

    k1: tuple[float, ...] = (0.8, 1.2, 1.6, 2.0)
    b: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    depth: int = 100

    def __post_init__(self) -> None:
        if not self.k1 or not self.b or min(self.k1) < 0 or not 0 <= min(self.b) <= max(self.b) <= 1 or self.depth < 1:
            raise ConfigError(
                f"rank: k1 {self.k1}, b {self.b}, depth {self.depth}",
                remedy="give values of k1 from 0, of b from 0 to 1, and a depth of 1 or more",
            )


@dataclass(frozen=True)
class SolveConfig:
    """Tier 0 of a task: the part of the task's kind counts. Variants are chosen on the validation rows.

    `refit`: with what was chosen, fit once more on training and validation rows together.
    """

    classify: ClassifyChoice = field(default_factory=ClassifyChoice)
    tag: TagChoice = field(default_factory=TagChoice)
    generate: GenerateChoice = field(default_factory=GenerateChoice)
    rank: RankChoice = field(default_factory=RankChoice)
    refit: bool = True


@stage("baseline.solve", produces="rung", inputs={"task": Input("dataset", "trained_on")})
def solve(config: SolveConfig, work: Work) -> Mapping[str, Scalar]:
    """Tier 0 of a task: TF-IDF with an SVM, a CRF, a text taken from the data, or BM25, by the kind of the task."""
    from nacre.tiers.baseline.solve import solve_task

    return solve_task(config, work)
