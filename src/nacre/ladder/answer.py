"""The stage that lets a rung answer the test rows. Light: the work is in `answering.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage


@dataclass(frozen=True)
class AnswerConfig:
    """`rows`: how many test rows, from the first (they lie in a shuffled order); None is all.

    `batch`: rows handed to the rung at once. `latency_rows`: how many are asked again one at a time, without the cache,
    to measure latency and the price of a call; 0 measures neither.
    """

    rows: int | None = None
    batch: int = 64
    latency_rows: int = 40

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise ConfigError(f"rows is {self.rows}", remedy="give 1 or more, or leave it out for all")
        if self.batch < 1 or self.latency_rows < 0:
            raise ConfigError(
                f"batch is {self.batch}, latency_rows {self.latency_rows}", remedy="give 1 or more, and 0 or more"
            )


@stage(
    "ladder.answer",
    produces="predictions",
    inputs={"rung": Input("rung", "evaluates"), "test": Input("dataset", "evaluated_on")},
)
def answer(config: AnswerConfig, work: Work) -> Mapping[str, Scalar]:
    """A rung's answers to the test rows, what they used, and how long one takes."""
    from nacre.ladder.answering import answer_test

    return answer_test(config, work)
