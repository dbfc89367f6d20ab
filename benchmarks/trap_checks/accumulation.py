"""Traps 1 and 2: one update of a batch is the same however the batch is cut into micro batches.

An update of plain SGD at rate 1 is the gradient; the greatest difference between two updates is taken relative to the
greatest change of the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig
from trap_checks.given import (
    Check,
    Found,
    Rows,
    Weights,
    causal_model,
    checkpoint,
    examples,
    kernel,
    sequences,
    sft_trainer,
    stacked,
    tokenizer,
    trainer_arguments,
    weights,
)

TOLERANCE = 1e-4

# (rows, micro batch, micro batches of one update) -> the weights before and after one pass over the rows.
Update = Callable[[Rows, int, int], tuple[Weights, Weights]]


def unequal_tokens(update: Update) -> Found:
    """Four sequences with 2, 30, 5 and 17 trained tokens: as one micro batch, and as four."""
    apart = _apart(update, sequences((2, 30, 5, 17)), (4, 1), (1, 4))
    return Found(apart < TOLERANCE, f"updates of 4 x 1 and 1 x 4 differ by {apart:.1e} of the update")


def short_window(update: Update) -> Found:
    """Two sequences of equal counts where the window asks for four: the gradient must not be halved."""
    apart = _apart(update, sequences((9, 9)), (2, 1), (1, 4))
    return Found(apart < TOLERANCE, f"a last window of 2 of 4 differs from a batch of 2 by {apart:.1e} of the update")


def _apart(update: Update, rows: Rows, first: tuple[int, int], second: tuple[int, int]) -> float:
    (start, one), (_, other) = update(rows, *first), update(rows, *second)
    greatest = max(float((one[name] - start[name]).abs().max()) for name in one)
    return max(float((one[name] - other[name]).abs().max()) for name in one) / greatest


def nacre(rows: Rows, batch: int, windows: int) -> tuple[Weights, Weights]:
    model = kernel("llama")
    start = weights(model)
    plain = {"optimizer": "sgd", "momentum": 0.0, "lr": 1.0, "weight_decay": 0.0, "clip_norm": None}
    still = {"schedule": "constant", "warmup": 0.0, "shuffle": False, "final": "last"}
    config = TrainConfig.of(epochs=1, batch_size=batch * windows, micro_batch=batch, **plain, **still)
    objective = Causal(tokenizer("llama"), CausalConfig(context=64, packing="none"))
    with tempfile.TemporaryDirectory() as place:
        train(model, objective, examples(rows), config, folder=Path(place))
    return start, weights(model)


def trainer(auto: str, style: str) -> Update:
    """transformers.Trainer on a model of the class `auto`."""

    def update(rows: Rows, batch: int, windows: int) -> tuple[Weights, Weights]:
        import transformers

        model = getattr(transformers, auto).from_pretrained(checkpoint(style), dtype=torch.float32)
        start = weights(model)
        with tempfile.TemporaryDirectory() as place:
            sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": windows}
            arguments = transformers.TrainingArguments(**trainer_arguments(place, **sizes))
            transformers.Trainer(model, arguments, data_collator=stacked, train_dataset=rows).train()
        return start, weights(model)

    return update


def trl(rows: Rows, batch: int, windows: int) -> tuple[Weights, Weights]:
    with tempfile.TemporaryDirectory() as place:
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": windows}
        run = sft_trainer(causal_model(), rows, trainer_arguments(place, **sizes))
        start = weights(run.model)
        run.train()
    return start, weights(run.model)


def accelerate(rows: Rows, batch: int, windows: int) -> tuple[Weights, Weights]:
    """The loop of its guide: `accumulate` around the loss that the model returns."""
    from accelerate import Accelerator

    accelerator, model = Accelerator(gradient_accumulation_steps=windows, cpu=True), causal_model()
    start = weights(model)
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=batch, collate_fn=stacked)  # type: ignore[arg-type]
    model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0), loader)
    for inputs in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(**inputs).loss)
            optimizer.step()
            optimizer.zero_grad()
    return start, weights(model)


def lightning(rows: Rows, batch: int, windows: int) -> tuple[Weights, Weights]:
    """`Trainer(accumulate_grad_batches=...)` around the loss that the model returns."""
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = causal_model().train()

        def training_step(self, inputs: dict[str, torch.Tensor], at: int) -> torch.Tensor:
            return self.model(**inputs).loss  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    module, quiet = Module(), {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    start = weights(module)
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=batch, collate_fn=stacked)  # type: ignore[arg-type]
    length = {"max_epochs": 1, "accumulate_grad_batches": windows, "enable_checkpointing": False}
    L.Trainer(accelerator="cpu", devices=1, **length, **quiet).fit(module, loader)
    return start, weights(module)


UPDATES: list[tuple[str, str, Update]] = [
    ("nacre", "nacre", nacre),
    ("transformers.Trainer, Llama", "transformers", trainer("AutoModelForCausalLM", "llama")),
    ("transformers.Trainer, BERT masked", "transformers", trainer("AutoModelForMaskedLM", "bert")),
    ("trl.SFTTrainer", "trl", trl),
    ("accelerate, accumulate()", "accelerate", accelerate),
    ("lightning.Trainer", "lightning", lightning),
]


def checks() -> list[Check]:
    questions = {
        ("1", "unequal tokens per micro batch"): unequal_tokens,
        ("2", "a last window cut short"): short_window,
    }
    return [
        Check(trap, asks, toolkit, package, lambda ask=ask, update=update: ask(update))  # type: ignore[misc]
        for (trap, asks), ask in questions.items()
        for toolkit, package, update in UPDATES
    ]
