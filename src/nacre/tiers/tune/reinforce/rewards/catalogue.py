"""Every reward there is, by the name it has under `rewards:`; and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol, Self, runtime_checkable

from nacre.data.chat.messages import Message
from nacre.errors import TrainingError
from nacre.lazy import named
from nacre.progress import Scalar
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
    "judge": "nacre.tiers.tune.reinforce.rewards.asked:JudgeReward",
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

    def __call__(self, answers: Sequence[Answer]) -> Sequence[float | None]:
        """One number per answer; None where there is none to be had, and that is not the answer's fault."""


@runtime_checkable
class Asking(Protocol):
    """A reward that holds an engine open while the run lasts, and tells what that cost."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *details: object) -> None: ...

    def cost(self) -> Mapping[str, Scalar]: ...


class Rewards:
    """The weighted sum of the rewards that a config names. `close` ends what they hold open."""

    def __init__(self, config: RewardsConfig, work: Work) -> None:
        self.weights = {name: part.weight for name, part in config.parts.items()}
        with ExitStack() as held:
            self.rewards: dict[str, Reward] = {
                name: named(REWARDS[name])(part, work) for name, part in config.parts.items()
            }
            self._asking = {name: one for name, one in self.rewards.items() if isinstance(one, Asking)}
            for one in self._asking.values():
                held.enter_context(one)
            self.close = held.pop_all().close

    def costs(self) -> dict[str, Scalar]:
        """What the engines that were asked cost so far, by reward and kind."""
        return {f"{name}_{kind}": value for name, one in self._asking.items() for kind, value in one.cost().items()}

    @property
    def needs(self) -> dict[str, str]:
        """Field -> the reward that needs it."""
        return {one.needs: name for name, one in self.rewards.items() if one.needs is not None}

    def __call__(self, answers: Sequence[Answer]) -> list[tuple[float, dict[str, float]]]:
        """The sum and its parts, before their weights, for each answer. TrainingError for what is no number.

        An answer without a number earns the mean of those to its prompt that have one, else that of all; the part
        NAME_unscored says which these are.
        """
        columns = {name: self._column(name, reward, answers) for name, reward in self.rewards.items()}
        parts: dict[str, list[float]] = {}
        for name, column in columns.items():
            parts[name] = _filled(column, answers)
            if name in self._asking:
                parts[f"{name}_unscored"] = [float(value is None) for value in column]
        return [
            (sum(self.weights[name] * parts[name][i] for name in columns), {n: c[i] for n, c in parts.items()})
            for i in range(len(answers))
        ]

    def _column(self, name: str, reward: Reward, answers: Sequence[Answer]) -> list[float | None]:
        judged = [i for i, one in enumerate(answers) if reward.cut is None or not one.cut]
        values: list[float | None] = [0.0 if reward.cut is None else reward.cut] * len(answers)
        for i, value in zip(judged, reward([answers[i] for i in judged]), strict=True):
            if value is None:
                values[i] = None
                continue
            if not math.isfinite(value):
                raise TrainingError(
                    f"the reward {name} says {value} of the answer {answers[i].text[:80]!r}",
                    remedy="correct the reward: every answer needs a number",
                )
            values[i] = float(value)
        return values


def _filled(column: Sequence[float | None], answers: Sequence[Answer]) -> list[float]:
    """Numbers throughout: the mean over the same prompt, else over all, stands where there was none."""
    known: dict[int, list[float]] = {}
    for value, answer in zip(column, answers, strict=True):
        if value is not None:
            known.setdefault(id(answer.messages), []).append(value)
    every = [value for values in known.values() for value in values]
    return [
        fmean(known.get(id(answer.messages), every)) if value is None else value
        for value, answer in zip(column, answers, strict=True)
    ]
