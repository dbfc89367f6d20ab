"""The stages that learn from preferences. Light: torch is imported inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nacre.data.chat.shipped import check_name
from nacre.errors import CheckpointError, DataError
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig, chosen
from nacre.kernel.config import KernelConfig
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.train.config import TrainConfig
from nacre.train.objectives.config_align import PreferenceConfig, RewardConfig

_INPUTS = {
    "model": Input("model", "finetuned_from"),
    "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
    "data": Input("dataset", "trained_on"),
}


@dataclass(frozen=True)
class TunePreferenceConfig:
    """`template`: one that is shipped (None: the tokenizer's own, or none, where prompts of one turn are read as they
    are). `dropout`: whether it acts in training; the reference is asked without, so off is what its loss is made for.
    `lora`: train adapters, whose base is then the reference."""

    objective: PreferenceConfig = field(default_factory=PreferenceConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=1, lr=1e-5, warmup=0.1))
    template: str | None = None
    dropout: bool = False
    limit: int | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None

    def __post_init__(self) -> None:
        if self.template is not None:
            check_name(self.template)


@dataclass(frozen=True)
class TuneRewardConfig:
    """`template` as in `TunePreferenceConfig`. An encoder reads prompt and answer as a pair of texts."""

    objective: RewardConfig = field(default_factory=RewardConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=1, lr=1e-5, warmup=0.1))
    template: str | None = None
    limit: int | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None

    def __post_init__(self) -> None:
        if self.template is not None:
            check_name(self.template)


def check_preference(config: TunePreferenceConfig, inputs: Mapping[str, Path]) -> None:
    """What can be known before: the rows' format, the template, that the kernels can write and fit each other."""
    chosen(config.lora, config.adapter)
    kinds = ("preference pairs", "judged answers") if config.objective.kind == "kto" else ("preference pairs",)
    check_rows(inputs, kinds)
    model = config_of(inputs.get("model"))
    if model is not None and model.head != "lm":
        raise CheckpointError(
            f"{inputs['model']} has the head {model.head!r} and cannot write text",
            remedy="give a decoder or encoder-decoder with its language-model head",
        )
    reference = config_of(inputs.get("reference"))
    if model is not None and reference is not None:
        check_reference(model, reference)
    check_template(config.template, inputs)


def check_reward(config: TuneRewardConfig, inputs: Mapping[str, Path]) -> None:
    """What can be known before: the rows' format, the template, that the kernel can judge."""
    chosen(config.lora, config.adapter)
    check_rows(inputs, ("preference pairs",))
    model = config_of(inputs.get("model"))
    if model is not None and model.layout == "encoder-decoder":
        raise CheckpointError(
            f"{inputs['model']} is an encoder-decoder, which has no head that scores a text",
            remedy="give a decoder or an encoder",
        )
    check_template(config.template, inputs)


def check_reference(model: KernelConfig, reference: KernelConfig) -> None:
    """Raises CheckpointError unless both kernels can say how likely the same tokens are."""
    for name in ("layout", "head", "vocab_size"):
        mine, other = getattr(model, name), getattr(reference, name)
        if mine != other:
            raise CheckpointError(
                f"the reference has {name} {other!r}, the model {mine!r}: they cannot be compared token by token",
                remedy="give the model that this one was tuned from, or leave the reference out (the model itself)",
            )


def check_rows(inputs: Mapping[str, Path], kinds: tuple[str, ...]) -> None:
    """Raises DataError unless the first training row looks like one of `kinds`."""
    from nacre.data.chat.formats import kind_of
    from nacre.data.read import read

    file = inputs["data"] / "train.jsonl" if "data" in inputs else None
    row = None if file is None or not file.is_file() else next(iter(read(file)), None)
    if row is None:
        return
    try:
        kind, form = kind_of(row)
    except DataError as error:
        raise DataError(f"{file}: {error.message}", remedy=error.remedy) from error
    if kind not in kinds:
        raise DataError(
            f"{file}: these rows are {kind} ({form.name}), not {' or '.join(kinds)}",
            remedy="conversations are trained by tune.sft, judged answers by tune.preference with kind: kto",
        )


def check_template(name: str | None, inputs: Mapping[str, Path]) -> None:
    """Raises ConfigError when the template lacks tokens, or does not tell answers from prompts."""
    from nacre.data.chat.template import ChatTemplate
    from nacre.data.tokenizer import Tokenizer

    folder = inputs.get("tokenizer", inputs.get("model"))
    if folder is None:
        return
    tokenizer = Tokenizer.load(folder)
    template = ChatTemplate.find(folder, tokenizer) if name is None else ChatTemplate.named(name, tokenizer)
    if template is not None:
        template.check()


def config_of(model: Path | None) -> KernelConfig | None:
    """The design of a model that is there already; None where it is made by an earlier step."""
    from nacre.kernel.hf_config import read_config

    if model is None or not (model / "config.json").is_file():
        return None
    return read_config(json.loads((model / "config.json").read_text(encoding="utf-8")))


@stage(
    "tune.preference",
    produces="model",
    inputs=_INPUTS | {"reference": Input("model", "aligned_with", optional=True)},
    check=check_preference,
)
def preference(config: TunePreferenceConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel taught which answers are preferred (DPO, IPO, KTO, ORPO, SimPO)."""
    from nacre.tiers.tune.preferring_worker import tune_preference

    return tune_preference(config, work)


@stage("tune.reward", produces="model", inputs=_INPUTS, check=check_reward)
def reward(config: TuneRewardConfig, work: Work) -> Mapping[str, Scalar]:
    """A reward model: a kernel that gives each answer to a prompt one number."""
    from nacre.tiers.tune.preferring_worker import tune_reward

    return tune_reward(config, work)
