"""Stages of tier 5: initialise a kernel of a known design, pretrain it, solve a task with it. Light: no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nacre.errors import ConfigError, closest
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.tiers.pretrain.effort import SOLVERS, check_family
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import CausalConfig, MaskedConfig, PairConfig, SpanConfig

_TRAINED = {
    "model": Input("model", "made_from"),
    "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
    "data": Input("dataset", "trained_on"),
}


@dataclass(frozen=True)
class InitialiseConfig:
    """`preset`: a known design. `choices`: fields of KernelConfig that differ from it, sizes as a rule.

    The vocabulary and the ids of special tokens come from the tokenizer.
    """

    preset: str = "bert"
    choices: Mapping[str, Any] = field(default_factory=dict)


def _check_initialise(config: InitialiseConfig, inputs: Mapping[str, Path]) -> None:
    from nacre.kernel.presets import preset

    del inputs
    preset(config.preset, **config.choices)


@stage(
    "kernel.initialise",
    produces="model",
    inputs={"tokenizer": Input("tokenizer", "tokenized_by", optional=True)},
    check=_check_initialise,
)
def initialise(config: InitialiseConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel with random weights, seeded by the recipe."""
    from nacre.tiers.pretrain.worker import initialise_kernel

    return initialise_kernel(config, work)


@dataclass(frozen=True)
class PretrainCausalConfig:
    """Next-token prediction (GPT)."""

    objective: CausalConfig = field(default_factory=CausalConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=1))
    limit: int | None = None  # training rows


@dataclass(frozen=True)
class PretrainMaskedConfig:
    """Masked language modelling (RoBERTa)."""

    objective: MaskedConfig = field(default_factory=MaskedConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=1))
    limit: int | None = None


@dataclass(frozen=True)
class PretrainPairsConfig:
    """Masked language modelling with next-sentence prediction (BERT)."""

    objective: PairConfig = field(default_factory=PairConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=1))
    limit: int | None = None


@dataclass(frozen=True)
class PretrainSpanConfig:
    """Span corruption (T5)."""

    objective: SpanConfig = field(default_factory=SpanConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=1))
    limit: int | None = None


@stage("pretrain.causal", produces="model", inputs=_TRAINED)
def causal(config: PretrainCausalConfig, work: Work) -> Mapping[str, Scalar]:
    """A decoder pretrained by predicting the next token."""
    from nacre.tiers.pretrain.worker import pretrain

    return pretrain("causal", "lm", config.objective, config.train, config.limit, work)


@stage("pretrain.mlm", produces="model", inputs=_TRAINED)
def mlm(config: PretrainMaskedConfig, work: Work) -> Mapping[str, Scalar]:
    """An encoder pretrained by masked language modelling."""
    from nacre.tiers.pretrain.worker import pretrain

    return pretrain("mlm", "mlm", config.objective, config.train, config.limit, work)


@stage("pretrain.bert", produces="model", inputs=_TRAINED)
def bert(config: PretrainPairsConfig, work: Work) -> Mapping[str, Scalar]:
    """An encoder pretrained by masked language modelling and next-sentence prediction."""
    from nacre.tiers.pretrain.worker import pretrain

    return pretrain("nsp", "pretraining", config.objective, config.train, config.limit, work)


@stage("pretrain.span", produces="model", inputs=_TRAINED)
def span(config: PretrainSpanConfig, work: Work) -> Mapping[str, Scalar]:
    """An encoder-decoder pretrained by span corruption."""
    from nacre.tiers.pretrain.worker import pretrain

    return pretrain("span", "lm", config.objective, config.train, config.limit, work)


@dataclass(frozen=True)
class SolveConfig:
    """A task solved from nothing: tokenizer, kernel and head trained on its own text.

    `effort` resolves to a number of operations (see `effort.py`); `flops`, or `steps` of tuning, say it outright.
    `preset`: the kernel's family; by default what fits the kind of task. `ratio`, `epochs`: the scaling rule's (see
    `recipe/scaling.py`). `warm_up`: pretraining on the unlabelled text before tuning; `auto` tries it in `thorough`
    alone, where validation decides.
    """

    effort: Literal["quick", "normal", "thorough"] = "normal"
    flops: float | None = None
    steps: int | None = None
    preset: str | None = None
    ratio: float = 20.0
    epochs: float = 4.0
    warm_up: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        if self.flops is not None and self.steps is not None:
            raise ConfigError("flops and steps are both given", remedy="give one of them")
        for name in ("flops", "steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value}", remedy="give a number above 0")
        if self.preset is not None and self.preset not in SOLVERS:
            raise ConfigError(
                f"no kernel of the family {self.preset!r} solves tasks", remedy=closest(self.preset, SOLVERS)
            )


def _check_solve(config: SolveConfig, inputs: Mapping[str, Path]) -> None:
    if "task" in inputs:
        from nacre.tiers.task import load

        check_family(config.preset, load(inputs["task"]).kind)


@stage(
    "pretrain.solve",
    produces="rung",
    inputs={"task": Input("dataset", "trained_on"), "corpus": Input("dataset", "trained_on", optional=True)},
    check=_check_solve,
    revision=2,
)
def solve(config: SolveConfig, work: Work) -> Mapping[str, Scalar]:
    """A task solved by a kernel of its own, from random weights, on nothing but its text."""
    from nacre.tiers.pretrain.solver import solve_task

    return solve_task(config, work)
