"""Stages of tier 4: fine-tune a given kernel on a task. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig, chosen
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.tiers.tune.effort import METHODS, Method
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import (
    Balance,
    CausalConfig,
    ClassifyConfig,
    ImageConfig,
    RobustConfig,
    Seq2SeqConfig,
    TagConfig,
)

TUNED = {
    "model": Input("model", "finetuned_from"),
    "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
    "data": Input("dataset", "trained_on"),
}


@dataclass(frozen=True)
class TuneClassifyConfig:
    """`pooling`: how token states become one. `balance`: how often rows of rare classes are seen. `lora`: train
    low-rank adapters and the head instead of all weights; the model is written merged, the adapters in `adapter/`.
    `adapter`: the same for every method; prefixes and prompts stay beside the model, which loads them with it.
    `robust`: train against changed embeddings, or against the draws of dropout."""

    objective: ClassifyConfig = field(default_factory=ClassifyConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    pooling: Literal["mean", "cls", "last"] = "mean"
    balance: Balance = "none"
    limit: int | None = None  # training rows
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    robust: RobustConfig | None = None


@dataclass(frozen=True)
class TuneTagConfig:
    objective: TagConfig = field(default_factory=TagConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    limit: int | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    robust: RobustConfig | None = None


@dataclass(frozen=True)
class TuneSeq2SeqConfig:
    objective: Seq2SeqConfig = field(default_factory=Seq2SeqConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    limit: int | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    robust: RobustConfig | None = None


@dataclass(frozen=True)
class TuneCausalConfig:
    objective: CausalConfig = field(default_factory=lambda: CausalConfig(packing="none"))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    limit: int | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    robust: RobustConfig | None = None


@dataclass(frozen=True)
class TuneImagesConfig:
    """`adapter`, or `lora`: train one beside the frozen body, and the head; prompts are for texts."""

    objective: ImageConfig = field(default_factory=ImageConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    balance: Balance = "none"
    limit: int | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None


def check_tuned(
    config: TuneClassifyConfig | TuneTagConfig | TuneSeq2SeqConfig | TuneCausalConfig, inputs: Mapping[str, Path]
) -> None:
    """Which settings do not go together."""
    del inputs
    chosen(config.lora, config.adapter)
    if config.robust is not None and config.train.compile:
        raise ConfigError("robust training hooks into the kernel and is not compiled", remedy="train.compile: false")


@stage("tune.classify", produces="model", inputs=TUNED, check=check_tuned)
def classify(config: TuneClassifyConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel fine-tuned to sort texts, or pairs of texts, into classes."""
    from nacre.tiers.tune.worker import tune_classify

    return tune_classify(config, work)


@stage("tune.tag", produces="model", inputs=TUNED, check=check_tuned)
def tag(config: TuneTagConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel fine-tuned to tag tokens, such as named entities."""
    from nacre.tiers.tune.worker import tune_tag

    return tune_tag(config, work)


@stage("tune.seq2seq", produces="model", inputs=TUNED, check=check_tuned)
def seq2seq(config: TuneSeq2SeqConfig, work: Work) -> Mapping[str, Scalar]:
    """An encoder-decoder fine-tuned to write a target for a source."""
    from nacre.tiers.tune.worker import tune_text

    return tune_text("seq2seq", config, work)


@stage("tune.causal", produces="model", inputs=TUNED, check=check_tuned)
def causal(config: TuneCausalConfig, work: Work) -> Mapping[str, Scalar]:
    """A decoder fine-tuned on texts, or on targets that follow sources."""
    from nacre.tiers.tune.worker import tune_text

    return tune_text("causal", config, work)


def check_images(config: TuneImagesConfig, inputs: Mapping[str, Path]) -> None:
    """Which settings do not go together, and which adapter images have no place for."""
    del inputs
    adapter = chosen(config.lora, config.adapter)
    if adapter is not None and adapter.method == "prompt":
        raise ConfigError(
            "a prompt stands before a text, and images are none",
            remedy="adapter: {method: lora}, bias, bottleneck or prefix",
        )


@stage("tune.images", produces="model", inputs={key: TUNED[key] for key in ("model", "data")}, check=check_images)
def images(config: TuneImagesConfig, work: Work) -> Mapping[str, Scalar]:
    """A vision kernel trained to sort images into classes."""
    from nacre.tiers.tune.worker import tune_images

    return tune_images(config, work)


@dataclass(frozen=True)
class SolveConfig:
    """How a task is solved on a given model.

    `effort` resolves to operations, methods and learning rates (see `effort.py`); `flops` says the operations outright.
    Methods: `frozen` leaves the body as it is (a logistic regression over its embeddings, or these alone to rank by),
    `lora`, `bottleneck` and `bias` train adapters, `full` everything; by default those of the effort, which are never
    `bottleneck` and `bias`. `learning_rates` are of `full`, `lora_rates` of adapters. `search`: the share of the
    operations that goes into choosing between them, by successive halving on parts of the rows. `epochs` of the run
    that follows; `max_steps` cuts every run. `patience`: evaluations, two an epoch, without improvement before a run
    stops. `context`: tokens of a text, and of a document to rank.
    """

    effort: Literal["quick", "normal", "thorough"] = "quick"
    flops: float | None = None
    methods: tuple[Method, ...] = ()
    learning_rates: tuple[float, ...] = ()
    lora_rates: tuple[float, ...] = ()
    search: float | None = None
    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int = 32
    patience: int = 3
    context: int = 256
    target_context: int = 128
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(16, 32.0, 0.05, ("attention.*", "cross.*", "ffn.*")))
    bottleneck: AdapterConfig = field(default_factory=lambda: AdapterConfig("bottleneck"))

    def __post_init__(self) -> None:
        for name in ("flops", "epochs", "max_steps", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value}", remedy="give a number above 0")
        if self.bottleneck.method != "bottleneck":
            raise ConfigError(f"bottleneck.method is {self.bottleneck.method}", remedy="leave it out")
        if self.search is not None and not 0 <= self.search < 1:
            raise ConfigError(f"search is {self.search}", remedy="give a share from 0 (none) up to, not including, 1")
        if any(not 0 < rate < float("inf") for rate in (*self.learning_rates, *self.lora_rates)):
            raise ConfigError("a learning rate is not above 0", remedy="give rates such as 2.0e-4")


def _check_solve(config: SolveConfig, inputs: Mapping[str, Path]) -> None:
    if "task" not in inputs:
        return
    from nacre.tiers.task import load

    kind = load(inputs["task"]).kind
    for method in config.methods:
        if method not in METHODS[kind]:
            raise ConfigError(
                f"a task of the kind {kind} is not solved by {method!r}", remedy=f"one of: {', '.join(METHODS[kind])}"
            )


@stage(
    "tune.solve",
    produces="rung",
    inputs={"task": Input("dataset", "trained_on"), "base": Input("model", "finetuned_from")},
    check=_check_solve,
)
def solve(config: SolveConfig, work: Work) -> Mapping[str, Scalar]:
    """A task solved by a given model, tuned as validation shows best."""
    from nacre.tiers.tune.solve import solve_task

    return solve_task(config, work)
