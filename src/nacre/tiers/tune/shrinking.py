"""The stage that makes a student: layers and tokens of a larger model. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage


@dataclass(frozen=True)
class ShrinkConfig:
    """`layers`: how many are kept, of each stack; `take`: every other one (`even`), the `first` or the `last`.
    `vocabulary`: `rows` keeps the tokens of the data's training rows, special tokens and single characters (WordPiece);
    `field` is the text of a row."""

    layers: int
    take: Literal["even", "first", "last"] = "even"
    vocabulary: Literal["all", "rows"] = "all"
    field: str = "text"

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ConfigError(f"layers is {self.layers}", remedy="keep 1 layer or more")


def _check_shrink(config: ShrinkConfig, inputs: Mapping[str, Path]) -> None:
    if config.vocabulary == "rows" and "model" in inputs and "data" not in inputs:
        raise ConfigError("vocabulary: rows needs rows", remedy="name the training data under inputs: data")


@stage(
    "kernel.shrink",
    produces="model",
    inputs={
        "model": Input("model", "pruned_from"),
        "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
        "data": Input("dataset", "made_from", optional=True),
    },
    check=_check_shrink,
)
def shrink(config: ShrinkConfig, work: Work) -> Mapping[str, Scalar]:
    """A smaller model with some layers and tokens of a larger one: what a student begins as."""
    from nacre.tiers.tune.shrinking_worker import shrink_kernel

    return shrink_kernel(config, work)
