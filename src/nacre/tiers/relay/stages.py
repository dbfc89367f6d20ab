"""The stage of tier 1. Light: what asks engines is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

Way = Literal["chat", "labels", "similarity"]


@dataclass(frozen=True)
class RelayConfig:
    """How the engine is asked; none of it is tuned on the task's rows.

    `way`: `chat` asks in words and parses strictly; `labels` takes the label of the highest log-probability, per token
    (`per_token`), set against inputs without content (`calibrate`); `similarity` takes the label, or the passages,
    nearest in the engine's embedding. `auto` takes what the engine can, and reports it: to classify, `chat`, `labels`,
    `similarity`, in this order; to tag and to write, `chat`; to rank, `similarity` and else `chat`.
    `max_tokens` bounds a written answer (None: by the kind of task). `candidates`: passages that a chat engine is shown
    to rank; `top`: passages named by nearness. `temperature` of the softmax that makes `scores` of cosines.
    """

    way: Literal["auto", "chat", "labels", "similarity"] = "auto"
    batch: int = 64
    max_tokens: int | None = None
    per_token: bool = True
    calibrate: bool = False
    candidates: int = 20
    top: int = 100
    temperature: float = 0.05

    def __post_init__(self) -> None:
        for name in ("batch", "max_tokens", "candidates", "top"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", remedy=f"set {name} to 1 or more")
        if self.temperature <= 0:
            raise ConfigError(f"temperature is {self.temperature}", remedy="give a number above 0, 0.05 as a rule")


def _check_way(config: RelayConfig, inputs: Mapping[str, Path]) -> None:
    from nacre.tiers.relay.ways import check_way
    from nacre.tiers.task import load

    if "task" in inputs:
        check_way(config.way, load(inputs["task"]).kind)


@stage(
    "relay.solve",
    produces="rung",
    inputs={"task": Input("dataset", "made_from"), "engine": Input("any", "calls")},
    check=_check_way,
    revision=2,
)
def solve(config: RelayConfig, work: Work) -> Mapping[str, Scalar]:
    """The task handed to an engine as it is: in words, by log-probabilities of labels, or by nearness of vectors."""
    from nacre.tiers.relay.worker import relay_solve

    return relay_solve(config, work)
