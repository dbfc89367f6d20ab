"""Stages of tier 4: fine-tune a given kernel on a task. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import Balance, CausalConfig, ClassifyConfig, ImageConfig, Seq2SeqConfig, TagConfig

_TUNED = {
    "model": Input("model", "finetuned_from"),
    "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
    "data": Input("dataset", "trained_on"),
}


@dataclass(frozen=True)
class TuneClassifyConfig:
    """`pooling`: how token states become one. `balance`: how often rows of rare classes are seen."""

    objective: ClassifyConfig = field(default_factory=ClassifyConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    pooling: Literal["mean", "cls", "last"] = "mean"
    balance: Balance = "none"
    limit: int | None = None  # training rows


@dataclass(frozen=True)
class TuneTagConfig:
    objective: TagConfig = field(default_factory=TagConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    limit: int | None = None


@dataclass(frozen=True)
class TuneSeq2SeqConfig:
    objective: Seq2SeqConfig = field(default_factory=Seq2SeqConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    limit: int | None = None


@dataclass(frozen=True)
class TuneCausalConfig:
    objective: CausalConfig = field(default_factory=lambda: CausalConfig(packing="none"))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    limit: int | None = None


@dataclass(frozen=True)
class TuneImagesConfig:
    objective: ImageConfig = field(default_factory=ImageConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    balance: Balance = "none"
    limit: int | None = None


@stage("tune.classify", produces="model", inputs=_TUNED)
def classify(config: TuneClassifyConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel fine-tuned to sort texts, or pairs of texts, into classes."""
    from nacre.tiers.tune.worker import tune_classify

    return tune_classify(config, work)


@stage("tune.tag", produces="model", inputs=_TUNED)
def tag(config: TuneTagConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel fine-tuned to tag tokens, such as named entities."""
    from nacre.tiers.tune.worker import tune_tag

    return tune_tag(config, work)


@stage("tune.seq2seq", produces="model", inputs=_TUNED)
def seq2seq(config: TuneSeq2SeqConfig, work: Work) -> Mapping[str, Scalar]:
    """An encoder-decoder fine-tuned to write a target for a source."""
    from nacre.tiers.tune.worker import tune_text

    return tune_text("seq2seq", config.objective, config.train, config.limit, work)


@stage("tune.causal", produces="model", inputs=_TUNED)
def causal(config: TuneCausalConfig, work: Work) -> Mapping[str, Scalar]:
    """A decoder fine-tuned on texts, or on targets that follow sources."""
    from nacre.tiers.tune.worker import tune_text

    return tune_text("causal", config.objective, config.train, config.limit, work)


@stage("tune.images", produces="model", inputs={key: _TUNED[key] for key in ("model", "data")})
def images(config: TuneImagesConfig, work: Work) -> Mapping[str, Scalar]:
    """A vision kernel trained to sort images into classes."""
    from nacre.tiers.tune.worker import tune_images

    return tune_images(config, work)
