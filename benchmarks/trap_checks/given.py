"""What all toolkits are given: a tiny model with the same weights, tokenizers, and sequences of unequal answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.data.tokenizer import Tokenizer, TokenizerConfig
from nacre.data.tokenizer import train as train_tokenizer
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.objective import IGNORE
from nacre.train.objectives.decoder import CausalExample, Run

ENGLISH = ("The parcel is late again and nobody answers", "My card was refused at the shop", "Please call me back")
CHINESE = "我们昨天购买的商品还没有收到物流信息也没有更新请尽快处理"
SHORT = ("late", "the card", "again", "shop")
LENGTH, VOCABULARY = 36, 150

Weights = dict[str, torch.Tensor]
Rows = list[dict[str, list[int]]]


@dataclass(frozen=True)
class Found:
    """Whether a toolkit passes, and the number that decided it."""

    passes: bool
    measured: str


@dataclass(frozen=True)
class Check:
    """One cell of the table: what is asked of which toolkit (and of which installed package), and how."""

    trap: str
    asks: str
    toolkit: str
    package: str
    run: Callable[[], Found]


@cache
def tokenizer(style: str) -> Tokenizer:
    algorithm = "wordpiece" if style == "bert" else "bpe"
    config = TokenizerConfig(algorithm, 360, style, lowercase=style == "bert")  # type: ignore[arg-type]
    return train_tokenizer([*ENGLISH, CHINESE] * 4, config, Path(tempfile.mkdtemp(prefix="traps-tokenizer-")))


@cache
def checkpoint(style: str) -> Path:
    """A Hugging Face folder with the model and the tokenizer of a style, `llama` or `bert`."""
    path = Path(tempfile.mkdtemp(prefix=f"traps-{style}-"))
    hf.save(kernel(style), path)
    tokenizer(style).save(path)
    return path


def kernel(style: str, dropout: float = 0.0) -> Kernel:
    rates = {"dropout": dropout, "attention_dropout": dropout, "embedding_dropout": dropout}
    sizes = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 128}
    config = preset({"llama": "llama2", "bert": "bert"}[style], vocab_size=len(tokenizer(style)), **sizes, **rates)
    return Kernel(config, torch.Generator().manual_seed(0))


def causal_model(**options: Any) -> Any:
    """The same weights as `kernel("llama")`, as a model of transformers."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32, **options)


def words_of(style: str) -> Any:
    """The same tokenizer, as one of transformers."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(checkpoint(style))


def sequences(trained: Sequence[int]) -> Rows:
    """Random ids of one length; of each sequence only the last so many are trained."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(10, VOCABULARY, size=LENGTH).tolist() for _ in trained]
    labels = [[IGNORE] * (LENGTH - n) + ids[-n:] for ids, n in zip(rows, trained, strict=True)]
    return [{"input_ids": ids, "labels": wanted} for ids, wanted in zip(rows, labels, strict=True)]


def examples(rows: Rows) -> list[CausalExample]:
    """The same sequences for Nacre's causal objective."""
    runs = [Run(np.array(row["input_ids"], np.int32), np.array(row["labels"]) != IGNORE) for row in rows]
    return [CausalExample((run,)) for run in runs]


def stacked(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}


def weights(model: torch.nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def trainer_arguments(place: str, **changes: Any) -> dict[str, Any]:
    """Arguments of transformers.Trainer under which an update is the gradient: SGD, no clipping, no decay."""
    given = {
        "output_dir": place,
        "num_train_epochs": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_strategy": "no",
        "train_sampling_strategy": "sequential",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    return {**given, **changes}


def sft_trainer(model: Any, rows: Rows, settings: dict[str, Any], callbacks: Sequence[Any] = ()) -> Any:
    """trl.SFTTrainer on sequences that are token ids already."""
    import datasets
    import trl

    settings = {"gradient_checkpointing": False, **settings}
    return trl.SFTTrainer(
        model,
        trl.SFTConfig(**settings),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=words_of("llama"),
        callbacks=list(callbacks),
    )
