"""The stages of tier 2. Light: what asks engines is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

Way = Literal["words", "similarity"]


@dataclass(frozen=True)
class PromptConfig:
    """How a prompt is searched for. Training rows are shown, validation rows choose, test rows are never seen.

    `way`: `words` optimises an instruction and its demonstrations; `similarity` the wording that stands for a label, or
    the prefixes of queries and passages, in an embedding; `auto` takes `words` where the engine chats, else
    `similarity` where the task allows it and the engine embeds, else `words`, and reports its choice.
    `budget_requests` bounds the prompts that are asked (`words`) or the batches that are embedded (`similarity`) by the
    search, answers from the cache included, so that a search that is run again takes the same turns.

    For words: `demonstrations` is the number of examples in a prompt that has any, none longer than
    `longest_demonstration` characters; `reflect_rows` training rows are asked by the default prompt, and from those
    that it misjudged the engine proposes up to `proposals` instructions; `keep` is the share of candidates that goes on
    to each next round of validation rows; `first_rows` the fewest rows that a candidate is judged on.

    For similarity: `label_examples` are the numbers of training rows that join a label's wording, drawn `draws` times;
    `temperature` of the softmax that makes `scores` of cosines; `top`: passages named per query.
    """

    way: Literal["auto", "words", "similarity"] = "auto"
    budget_requests: int = 400
    valid_rows: int = 1000
    demonstrations: int = 4
    longest_demonstration: int = 1500
    reflect_rows: int = 24
    proposals: int = 3
    keep: float = 0.5
    first_rows: int = 8
    max_tokens: int | None = None
    label_examples: tuple[int, ...] = (0, 1, 3, 5)
    draws: int = 2
    temperature: float = 0.05
    top: int = 100
    batch: int = 64

    def __post_init__(self) -> None:
        for name in ("budget_requests", "valid_rows", "longest_demonstration", "first_rows", "draws", "top", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy=f"set {name} to 1 or more")
        for name in ("demonstrations", "reflect_rows", "proposals"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy=f"set {name} to 0 or more")
        if not 0 < self.keep < 1:
            raise ConfigError(f"keep is {self.keep}", remedy="give a share above 0 and below 1: 0.5")
        if not self.label_examples or min(self.label_examples) < 0:
            raise ConfigError(f"label_examples are {self.label_examples}", remedy="give numbers from 0 on: [0, 1, 3]")
        if self.temperature <= 0:
            raise ConfigError(f"temperature is {self.temperature}", remedy="give a number above 0: 0.05")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}", remedy="give 1 or more, or leave it out")
        if self.budget_requests < self.first_rows:
            what = f"budget_requests is {self.budget_requests}, too few to judge one prompt on {self.first_rows} rows"
            raise ConfigError(what, remedy=f"give {self.first_rows} requests or more, or lower first_rows")


def _check_task(config: PromptConfig, inputs: Mapping[str, Path]) -> None:
    from nacre.tiers.prompt.ways import check_task
    from nacre.tiers.task import load

    if "task" in inputs:
        check_task(config.way, load(inputs["task"]))


_INPUTS = {"task": Input("dataset", "trained_on"), "engine": Input("any", "calls")}


@stage("prompt.solve", produces="rung", inputs=_INPUTS, check=_check_task, revision=2)
def solve(config: PromptConfig, work: Work) -> Mapping[str, Scalar]:
    """The task by a called engine with the prompt that did best on validation rows, as a rung."""
    from nacre.tiers.prompt.worker import prompt_solve

    return prompt_solve(config, work)


@stage("prompt.optimise", produces="prompt", inputs=_INPUTS, check=_check_task)
def optimise(config: PromptConfig, work: Work) -> Mapping[str, Scalar]:
    """The prompt that did best on validation rows, as a prompt file with the log of the search."""
    from nacre.tiers.prompt.worker import prompt_optimise

    return prompt_optimise(config, work)
