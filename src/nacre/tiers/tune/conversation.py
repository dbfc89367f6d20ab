"""The stage that teaches conversations. Light: torch is imported inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nacre.data.chat.shipped import check_name
from nacre.errors import ConfigError
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig, chosen
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import RobustConfig
from nacre.train.objectives.config_align import SftConfig


@dataclass(frozen=True)
class TuneSftConfig:
    """`template`: one that is shipped (None: the tokenizer's own). `add_tokens`: its control tokens that the tokenizer
    lacks are added to it, the embeddings grow, and the new rows are trained with the rest."""

    objective: SftConfig = field(default_factory=SftConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    template: str | None = None
    add_tokens: bool = False
    limit: int | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    robust: RobustConfig | None = None

    def __post_init__(self) -> None:
        if self.template is not None:
            check_name(self.template)
        elif self.add_tokens:
            raise ConfigError(
                "add_tokens adds the tokens of a template that is shipped, and none is named", remedy="set template:"
            )


def check_sft(config: TuneSftConfig, inputs: Mapping[str, Path]) -> None:
    """What can be known before: the format of the first training row, the template, its tokens and its marks."""
    from nacre.data.chat.formats import require_conversations
    from nacre.data.chat.template import ChatTemplate
    from nacre.data.read import read

    chosen(config.lora, config.adapter)
    if config.robust is not None and config.train.compile:
        raise ConfigError("robust training hooks into the kernel and is not compiled", remedy="train.compile: false")
    if "data" in inputs and (file := inputs["data"] / "train.jsonl").is_file():
        require_conversations(read(file), str(file))
    folder = inputs.get("tokenizer", inputs.get("model"))
    if folder is None or (config.template is None and _answers_without_template(inputs.get("model"))):
        return
    template = ChatTemplate.open(folder, config.template, add_tokens=config.add_tokens)
    if config.objective.trained != "all":
        template.check()


def _answers_without_template(model: Path | None) -> bool:
    """Whether the model is an encoder-decoder, which reads single questions as they are."""
    from nacre.kernel.hf_config import read_config

    if model is None or not (model / "config.json").is_file():
        return False
    given = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return read_config(given).layout == "encoder-decoder"


@stage(
    "tune.sft",
    produces="model",
    inputs={
        "model": Input("model", "finetuned_from"),
        "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
        "data": Input("dataset", "trained_on"),
    },
    check=check_sft,
)
def sft(config: TuneSftConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel taught to answer: of conversations the answers are trained, and nothing else."""
    from nacre.tiers.tune.conversation_worker import tune_sft

    return tune_sft(config, work)
