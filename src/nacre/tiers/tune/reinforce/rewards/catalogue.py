"""Every reward there is, by the name it has under `rewards:`; and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nacre.data.chat.messages import Message
from nacre.errors import TrainingError
from nacre.lazy import named
from nacre.recipe.stage import Work
from nacre.tiers.tune.reinforce.config import RewardsConfig

# A reward costs a config class and a field in `config.py`, and a line here.
REWARDS: dict[str, str] = {
    "exact": "nacre.tiers.tune.reinforce.rewards.matching:ExactReward",
    "number": "nacre.tiers.tune.reinforce.rewards.matching:NumberReward",
    "format": "nacre.tiers.tune.reinforce.rewards.matching:FormatReward",
    "length": "nacre.tiers.tune.reinforce.rewards.matching:LengthReward",
    "tests": "nacre.tiers.tune.reinforce.rewards.programs:TestsReward",
    "model": "nacre.tiers.tune.reinforce.rewards.judged:ModelReward",
}


@dataclass(frozen=True)
class Answer:
    """What is rewarded. `row` is the prompt's; `tokens` counts the end token; `cut`: it ended at the limit."""

    messages: Sequence[Message]
    text: str
    row: Mapping[str, Any]
    tokens: int
    cut: bool


class Reward(Protocol):
    """A reward, made from its settings and the step's work.

    `needs`: the field of a row without which it cannot judge. `cut`: what an answer earns that was cut off, which it
    could otherwise earn without ever ending one; None: it is judged as it is.
    """

    needs: str | None
    cut: float | None

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One number per answer."""


class Rewards:
    """The weighted sum of the rewards that a config names."""

    def __init__(self, config: RewardsConfig, work: Work) -> None:
        self.weights = {name: part.weight for name, part in config.parts.items()}
        self.rewards: dict[str, Reward] = {
            name: named(REWARDS[name])(part, work) for name, part in config.parts.items()
        }

    @property
    def needs(self) -> dict[str, str]:
        """Field -> the reward that needs it."""
        return {one.needs: name for name, one in self.rewards.items() if one.needs is not None}

    def __call__(self, answers: Sequence[Answer]) -> list[tuple[float, dict[str, float]]]:
        """The sum and its parts, before their weights, for each answer. TrainingError for what is no number."""
        columns = {name: self._column(name, reward, answers) for name, reward in self.rewards.items()}
        return [
            (
                sum(self.weights[name] * column[i] for name, column in columns.items()),
                {n: c[i] for n, c in columns.items()},
            )
            for i in range(len(answers))
        ]

    def _column(self, name: str, reward: Reward, answers: Sequence[Answer]) -> list[float]:
        judged = [i for i, one in enumerate(answers) if reward.cut is None or not one.cut]
        values = [0.0 if reward.cut is None else reward.cut] * len(answers)
        for i, value in zip(judged, reward([answers[i] for i in judged]), strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the reward {name} says {value} of the answer {answers[i].text[:80]!r}",
                    remedy="correct the reward: every answer needs a number",
                )
            values[i] = float(value)
        return values
