"""Trap 44: a run that was stopped in the middle of an epoch and resumed ends in the same bits.

With dropout, shuffling, accumulation and two workers that load data.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig
from nacre.train.result import Interrupted
from trap_checks.given import (
    Check,
    Found,
    Weights,
    causal_model,
    examples,
    kernel,
    sequences,
    sft_trainer,
    stacked,
    tokenizer,
    trainer_arguments,
    weights,
)

# Ten sequences, four to an update: step 4 is in the middle of the second epoch.
ROWS = sequences((5, 9, 2, 30, 17, 8, 21, 3, 11, 26))
STEPS, STOPPED_AT, RATE = 7, 4, 1e-2


def _compared(run: Callable[[bool], Weights]) -> Found:
    whole, again, resumed = run(False), run(False), run(True)
    if any(not torch.equal(whole[name], again[name]) for name in whole):
        return Found(False, "two uninterrupted runs of one seed already differ")
    unequal = sum(not torch.equal(whole[name], resumed[name]) for name in whole)
    return Found(unequal == 0, f"{unequal} of {len(whole)} tensors differ after a stop at step {STOPPED_AT} of {STEPS}")


class _Stopped:
    """A progress that stops the run as a scheduler would."""

    def update(self, step: int, total: int | None = None, **metrics: Any) -> None:
        if step == STOPPED_AT:
            signal.raise_signal(signal.SIGTERM)

    def note(self, event: str, **details: Any) -> None:
        pass


def nacre() -> Found:
    config = TrainConfig(max_steps=STEPS, batch_size=4, micro_batch=2, workers=2, lr=RATE, log_every=1)
    objective = Causal(tokenizer("llama"), CausalConfig(context=64, packing="none"))

    def run(interrupt: bool) -> Weights:
        with tempfile.TemporaryDirectory() as place:
            if interrupt:
                with suppress(Interrupted):
                    model = kernel("llama", dropout=0.1)
                    train(model, objective, examples(ROWS), config, folder=Path(place), progress=_Stopped())
            model = kernel("llama", dropout=0.1)
            train(model, objective, examples(ROWS), config, folder=Path(place))
        return weights(model)

    return _compared(run)


def of_trainer(make: Callable[[dict[str, Any], list[Any]], Any]) -> Callable[[], Found]:
    """A Trainer of transformers or one built on it, stopped by a callback, resumed from its last checkpoint."""

    def check() -> Found:
        import transformers

        class Stop(transformers.TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                control.should_training_stop = state.global_step == STOPPED_AT

        def run(interrupt: bool) -> Weights:
            with tempfile.TemporaryDirectory() as place:
                sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": STEPS}
                saves = {"save_strategy": "steps", "save_steps": STOPPED_AT, "dataloader_num_workers": 2}
                steps = {"optim": "adamw_torch", "learning_rate": RATE, "train_sampling_strategy": "random", "seed": 3}
                settings = trainer_arguments(place, **sizes, **saves, **steps)
                for callbacks, resume in [([Stop()], None), ([], True)] if interrupt else [([], None)]:
                    transformers.set_seed(3)
                    trainer = make(settings, callbacks)
                    trainer.train(resume_from_checkpoint=resume)
                return weights(trainer.model)

        return _compared(run)

    return check


def _trainer(settings: dict[str, Any], callbacks: list[Any]) -> Any:
    import transformers

    arguments = transformers.TrainingArguments(**settings)
    model = causal_model(attention_dropout=0.1)
    return transformers.Trainer(model, arguments, data_collator=stacked, train_dataset=ROWS, callbacks=callbacks)


def _sft(settings: dict[str, Any], callbacks: list[Any]) -> Any:
    return sft_trainer(causal_model(attention_dropout=0.1), ROWS, settings, callbacks)


def lightning() -> Found:
    """Checkpoints of ModelCheckpoint every so many steps, the run stopped by max_steps, resumed with `ckpt_path`."""
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = causal_model(attention_dropout=0.1).train()

        def training_step(self, inputs: dict[str, torch.Tensor], at: int) -> torch.Tensor:
            return self.model(**inputs).loss  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=RATE)

    def fit(place: str, steps: int, resume: str | None) -> Weights:
        L.seed_everything(3, workers=True, verbose=False)
        module = Module()
        loader: Any = torch.utils.data.DataLoader(
            ROWS, batch_size=2, shuffle=True, collate_fn=stacked, num_workers=2, persistent_workers=False
        )  # type: ignore[arg-type]
        keep = ModelCheckpoint(dirpath=place, every_n_train_steps=STOPPED_AT, save_top_k=-1, save_last=True)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "callbacks": [keep]}
        run = L.Trainer(accelerator="cpu", devices=1, max_steps=steps, accumulate_grad_batches=2, **quiet)
        run.fit(module, loader, ckpt_path=resume)
        return weights(module)

    def run(interrupt: bool) -> Weights:
        with tempfile.TemporaryDirectory() as place:
            if interrupt:
                fit(place, STOPPED_AT, None)
            return fit(place, STEPS, f"{place}/last.ckpt" if interrupt else None)

    return _compared(run)


def checks() -> list[Check]:
    subjects: list[tuple[str, str, Callable[[], Found]]] = [
        ("nacre", "nacre", nacre),
        ("transformers.Trainer, Llama", "transformers", of_trainer(_trainer)),
        ("trl.SFTTrainer", "trl", of_trainer(_sft)),
        ("lightning.Trainer", "lightning", lightning),
    ]
    return [Check("44", "stopped and resumed, bit for bit", *subject) for subject in subjects]
