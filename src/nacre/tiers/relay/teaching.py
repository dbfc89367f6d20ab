"""`teach.collect`: a teacher's answers become a dataset that students are tuned on. Light: the work is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nacre.data.scrub import ScrubConfig
from nacre.engine.room import Budget
from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.tiers.asking.services import check_terms


@dataclass(frozen=True)
class CollectConfig:
    """What the teacher is asked and which answers are kept.

    `terms`: the terms of use of the teacher's service, in words or by address, and that they allow this; they are shown
    before the first call and stand in the record. A remote teacher is not asked without them.
    `prompt`: the field that holds the prompt; None reads rows of every chat format, up to the last question, else
    `text`. `system`: said to the teacher before every prompt that has no system turn, and not taught.
    `temperature` above 0 draws with the step's seed. `refusals`, `cut` (at `max_tokens`): what becomes of such answers.
    `scrub`: what becomes of answers in which the teacher introduces itself. `names`: of the teacher and its maker;
    answers that name them anywhere are dropped. `budget`: the most that the step may spend; what was answered when it
    ends is kept in the cache, and the step goes on from there under a larger one. `batch`: prompts between two reports.
    """

    terms: str = ""
    prompt: str | None = None
    system: str | None = None
    splits: tuple[Literal["train", "valid"], ...] = ("train", "valid")
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    refusals: Literal["drop", "keep"] = "drop"
    cut: Literal["drop", "keep"] = "drop"
    scrub: ScrubConfig = field(default_factory=ScrubConfig)
    names: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)
    limit: int | None = None  # prompts of a split
    batch: int = 32

    def __post_init__(self) -> None:
        for name in ("max_tokens", "batch", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", remedy=f"set {name} to 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}", remedy="give 0 (the likeliest answer) or more")
        if not self.splits:
            raise ConfigError("no split is named", remedy="splits: [train]")
        if any(len(name.strip()) < 2 for name in self.names):
            raise ConfigError("names holds a name of less than two characters", remedy="name the teacher and its maker")


def check_collect(config: CollectConfig, inputs: Mapping[str, Path]) -> None:
    """A remote teacher has terms, which somebody must have read."""
    if "teacher" in inputs:
        check_terms(inputs["teacher"], config.terms, "teacher")


@stage(
    "teach.collect",
    produces="dataset",
    inputs={"prompts": Input("dataset", "made_from"), "teacher": Input("any", "distilled_from")},
    check=check_collect,
)
def collect(config: CollectConfig, work: Work) -> Mapping[str, Scalar]:
    """Conversations whose answers a teacher wrote, without its name in them: what `tune.sft` reads."""
    from nacre.tiers.relay.teaching_worker import collect_answers

    return collect_answers(config, work)


@dataclass(frozen=True)
class ContrastConfig:
    """The model answers the prompts of demonstrations itself, `samples` times each: every answer becomes the rejected
    side of a pair whose chosen side is the demonstration. `temperature` 0 writes the likeliest answer, once."""

    samples: int = 1
    max_tokens: int = 128
    temperature: float = 1.0
    splits: tuple[Literal["train", "valid"], ...] = ("train", "valid")
    limit: int | None = None  # demonstrations of a split
    batch: int = 32

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens", "batch", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", remedy=f"set {name} to 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}", remedy="give 0 (the likeliest answer) or more")
        if self.samples > 1 and not self.temperature:
            raise ConfigError("several samples at temperature 0 are the same", remedy="samples: 1, or temperature: 1.0")


@stage(
    "teach.contrast",
    produces="dataset",
    inputs={"demonstrations": Input("dataset", "made_from"), "model": Input("model", "calls")},
)
def contrast(config: ContrastConfig, work: Work) -> Mapping[str, Scalar]:
    """Demonstrations against a model's own answers, as pairs: from them `tune.reward` learns what demonstrators want
    (inverse reinforcement), `tune.preference` learns it at once (self-play)."""
    from nacre.tiers.relay.contrasting_worker import contrast_answers

    return contrast_answers(config, work)
