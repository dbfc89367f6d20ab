"""The stage that asks a model who it is. Light: engines are opened inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage


@dataclass(frozen=True)
class IdentityConfig:
    """`names`: what the model should call itself, and `makers` whom it should name, in every spelling that counts (a
    Chinese and an English one, say). `teachers`: names of models and makers it learnt from, which it must not call
    itself by; those that `scrub` knows are looked for besides. `questions`: asked besides the ones that are built in,
    in both `languages`."""

    names: tuple[str, ...]
    makers: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    languages: tuple[Literal["en", "zh"], ...] = ("en", "zh")
    max_tokens: int = 96

    def __post_init__(self) -> None:
        if not self.names or any(not name.strip() for name in (*self.names, *self.makers, *self.teachers)):
            raise ConfigError("a name is missing or empty", remedy="names: [NAME], as the model was taught it")
        if not self.languages and not self.questions:
            raise ConfigError("nothing is asked", remedy="languages: [en, zh], or questions of your own")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}", remedy="set max_tokens to 1 or more")


@stage("evaluate.identity", produces="report", inputs={"model": Input("any", "evaluates")})
def identity(config: IdentityConfig, work: Work) -> Mapping[str, Scalar]:
    """Who a model says it is, in both languages: the share of right names, and of its teachers' names."""
    from nacre.lifecycle.evaluate.worker_identity import evaluate_identity

    return evaluate_identity(config, work)
