"""The work behind the stages of tier 5. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nacre.data.tokenizer import Tokenizer
from nacre.kernel import hf
from nacre.kernel.config import Head
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, fit, keep_tokenizer, load_kernel, load_tokenizer, rows_of
from nacre.tiers.pretrain.stages import InitialiseConfig
from nacre.train import objective as objectives
from nacre.train.config import TrainConfig
from nacre.train.order import seed_of


def initialise_kernel(config: InitialiseConfig, work: Work) -> Mapping[str, Scalar]:
    """Writes a fresh kernel, and the tokenizer it is for, into `work.out`."""
    choices = dict(config.choices)
    source = work.inputs.get("tokenizer")
    tokenizer = None if source is None else Tokenizer.load(source)
    if tokenizer is not None:
        choices |= _from_tokenizer(config.preset, tokenizer)
    generator = torch.Generator().manual_seed(seed_of("initialise", work.seed))
    kernel = Kernel(preset(config.preset, **choices), generator)
    hf.save(kernel, work.out)
    if tokenizer is not None:
        keep_tokenizer(tokenizer, work.out, source)
    return {"parameters": sum(parameter.numel() for parameter in kernel.parameters())}


def _from_tokenizer(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Vocabulary size (`len(tokenizer)`, special tokens included) and the ids that the kernel must know."""
    ids: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_id": tokenizer.pad_id}
    ids |= {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    if name.startswith("t5"):
        ids["decoder_start_id"] = tokenizer.pad_id
    return ids


def pretrain(
    name: str, head: Head, how: Any, config: TrainConfig, limit: int | None, work: Work
) -> Mapping[str, Scalar]:
    """Pretrains the model of the step on objective `name` under `head`."""
    tokenizer = load_tokenizer(work)
    rows = rows_of(work.inputs["data"], limit)
    kernel = load_kernel(work.inputs["model"], work)
    if kernel.config.head != head:
        kernel = kernel.with_head(head)
    metrics = fit(kernel, objectives.load(name)(tokenizer, how), rows, Fit(config), work)
    keep_tokenizer(tokenizer, work.out, work.inputs.get("tokenizer", work.inputs["model"]))
    return metrics
