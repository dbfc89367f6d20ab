"""LoRA beside full tuning: MiniLM on BANKING77, test accuracy and the share of parameters that is trained."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align_parts.distil import right
from nacre.data.models import find
from nacre.data.read import read
from nacre.data.tokenizer import Tokenizer
from nacre.kernel import hf
from nacre.kernel.adapters import adapted
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.model import Kernel
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.classify import Classify, labels_of
from nacre.train.objectives.config import ClassifyConfig
from nacre.train.order import generator_of

Measure = Callable[[str, str, int, dict[str, np.ndarray], float], Iterator[dict[str, Any]]]
EPOCHS = int(os.environ.get("ADAPTERS_EPOCHS", "5"))
ONLY = os.environ.get("ADAPTERS_ONLY", "")  # `lora` or `full`
LORA = AdapterConfig("lora", rank=8, alpha=16.0, targets=("attention.*", "ffn.*"))
# As in recipes/minilm.yaml; LoRA with a higher rate, and without rates by layer.
RATES: dict[str, dict[str, float]] = {"full": {"lr": 3e-4, "layer_decay": 0.9}, "lora": {"lr": 2e-3}}
TEXTS = ClassifyConfig(context=64)


def compared(data: Path, seeds: range, measured: Measure) -> Iterator[dict[str, Any]]:
    """Rows of full tuning and of LoRA for each seed, with as many epochs. NACRE_KEPT: where checkpoints stay, so that
    a run that was cut goes on. NACRE_FULL: a model tuned in full by recipes/minilm.yaml, judged instead of trained."""
    kept = Path(os.environ.get("NACRE_KEPT", tempfile.mkdtemp()))
    rows = {split: list(read(data / f"{split}.jsonl")) for split in ("train", "valid", "test")}
    words, labels = Tokenizer.load(find("minilm")), labels_of(rows["train"])
    for seed in seeds:
        found = {}
        for way in [one for one in ("full", "lora") if ONLY in ("", one)]:
            began = time.monotonic()
            torch.manual_seed(seed)
            kernel, trained = _made(way, labels, seed)
            objective = Classify(words, kernel.config.labels, TEXTS)
            if way == "lora" or "NACRE_FULL" not in os.environ:
                config = TrainConfig(
                    epochs=EPOCHS, batch_size=32, bucket=True, metric="accuracy", mode="max", seed=seed, **RATES[way]
                )
                examples, valid = (
                    prepare(objective, rows["train"]),
                    prepare(objective, rows["valid"], training=False),
                )
                train(kernel, objective, examples, config, valid=valid, folder=kept / f"{way}-{seed}")
            found[way] = right(kernel, objective, rows["test"])
            share = 100 * trained / sum(one.numel() for one in kernel.parameters())
            name = f"minilm banking77, {way}, {trained:,} trained ({share:.2f} %), {EPOCHS} epochs"
            values = {"accuracy": found[way]}
            if len(found) == 2:
                values["accuracy_below_full"] = found["full"] - found["lora"]
            yield from measured("adapters", name, seed, values, time.monotonic() - began)


def _made(way: str, labels: tuple[str, ...], seed: int) -> tuple[Kernel, int]:
    """The kernel to train (or to judge), and how many of its parameters that trains."""
    if way == "full" and "NACRE_FULL" in os.environ:
        kernel = hf.load(os.environ["NACRE_FULL"]).float()
    else:
        kernel = hf.load(find("minilm")).float().with_head("classify", labels=labels, pooling="mean")
    if way == "lora":
        adapted.attach(kernel, LORA, generator_of("lora", seed))
    return kernel, sum(one.numel() for one in kernel.parameters() if one.requires_grad)
