"""Traps 19 and 21: documents packed into one row have the loss that each has alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nacre.train.objective import IGNORE
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig
from nacre.train.objectives.decoder import CausalExample, Run
from trap_checks.given import Check, Found, causal_model, kernel, sequences, sft_trainer, tokenizer, trainer_arguments

TOLERANCE = 1e-5
DOCUMENTS = [row["input_ids"][: 12 + 7 * at] for at, row in enumerate(sequences((1, 1, 1, 1)))]
CONTEXT = 96


def _compared(packed: float, alone: float) -> Found:
    apart = abs(packed - alone) / alone
    return Found(apart < TOLERANCE, f"packed and single documents differ by {apart:.1e} of the loss")


def nacre() -> Found:
    model, objective = kernel("llama").eval(), Causal(tokenizer("llama"), CausalConfig(context=CONTEXT))
    documents = [CausalExample((Run(np.array(ids, np.int32)),)) for ids in DOCUMENTS]

    def loss(some: list[CausalExample]) -> float:
        with torch.no_grad():
            return float(objective.loss(model, objective.collate(objective.arrange(some), torch.Generator())).sum)

    return _compared(loss(documents), sum(loss([document]) for document in documents))


def _loss(model: Any, inputs: dict[str, Any]) -> float:
    """Summed over the labels that count once shifted, the model called as transformers.Trainer calls it."""
    given = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        logits = model(**given, use_cache=False).logits
    return float(F.cross_entropy(logits[0, :-1], inputs["labels"][0, 1:], ignore_index=IGNORE, reduction="sum"))


def _alone(model: Any) -> float:
    return sum(_loss(model, {"input_ids": ids, "labels": ids}) for ids in (torch.tensor([one]) for one in DOCUMENTS))


def flattening(attention: str) -> Callable[[], Found]:
    def check() -> Found:
        import transformers

        model = causal_model(attn_implementation=attention).eval()
        batch = transformers.DataCollatorWithFlattening()([{"input_ids": ids} for ids in DOCUMENTS])
        return _compared(_loss(model, batch), _alone(model))

    return check


def trl(strategy: str) -> Callable[[], Found]:
    """The batches that SFTTrainer makes under its packing strategy, with the attention that it chose."""

    def check() -> Found:
        sizes = {"per_device_train_batch_size": 1, "max_length": CONTEXT, "packing_strategy": strategy}
        rows = [{"input_ids": ids, "labels": ids} for ids in DOCUMENTS]
        with tempfile.TemporaryDirectory() as place:
            run = sft_trainer(causal_model(), rows, trainer_arguments(place, packing=True, **sizes))
            batches = [dict(batch) for batch in run.get_train_dataloader()]
        model = run.model.eval()
        return _compared(sum(_loss(model, batch) for batch in batches), _alone(model))

    return check


def checks() -> list[Check]:
    subjects: list[tuple[str, str, Callable[[], Found]]] = [
        ("nacre", "nacre", nacre),
        ("transformers.DataCollatorWithFlattening, sdpa", "transformers", flattening("sdpa")),
        ("transformers.DataCollatorWithFlattening, eager", "transformers", flattening("eager")),
        ("trl.SFTTrainer, packing bfd", "trl", trl("bfd")),
        ("trl.SFTTrainer, packing wrapped", "trl", trl("wrapped")),
    ]
    return [Check("19, 21", "packed documents do not see each other", *subject) for subject in subjects]
