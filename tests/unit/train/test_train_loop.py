"""The loop: what it reports, when it stops, what it leaves behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_stub import NextId, StubBatch, StubKernel, examples, weights

from nacre.errors import CheckpointError, ConfigError, DataError, ResourceError, TrainingError
from nacre.train.config import TrainConfig
from nacre.train.distributed import World
from nacre.train.evaluation import Setting, evaluate
from nacre.train.loop import train
from nacre.train.objective import Loss

VALID = examples(21, seed=1)


class Recorded:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.notes: dict[str, dict[str, Any]] = {}

    def update(self, step: int, total: int | None = None, **metrics: Any) -> None:
        self.rows.append({"step": step, "total": total, **metrics})

    def note(self, event: str, **details: Any) -> None:
        self.notes[event] = details


def config(**options: Any) -> TrainConfig:
    return TrainConfig.of(**{"max_steps": 12, "batch_size": 8, "lr": 0.01, "log_every": 4, **options})


def test_training_lowers_the_loss_and_says_what_it_did(tmp_path: Path) -> None:
    progress, kernel = Recorded(), StubKernel()
    result = train(
        kernel, NextId(), examples(40), config(max_steps=200, lr=0.05), valid=VALID, folder=tmp_path, progress=progress
    )
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert losses[0] == pytest.approx(math.log(17), rel=0.1)
    assert losses[-1] < 0.6 * losses[0]
    assert result.best is not None
    assert result.best.value == min(row["valid_loss"] for row in result.history if "valid_loss" in row)
    assert (result.steps, result.stopped_because) == (200, "done")
    assert result.tokens == sum(len(row) - 1 for row in examples(40)) * 40
    assert min(result.seconds, result.flops, result.peak_memory_mib) > 0
    assert {"loss", "lr", "grad_norm", "tokens_per_s", "memory_mib", "padding"} <= set(progress.rows[0])
    assert progress.notes["training"]["precision"] == "float32"
    assert not kernel.training


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"optimizer": "muon"},
        {"precision": "bf16"},
        {"precision": "bf16_autocast"},
        {"precision": "auto"},
        {"ema": 0.9},
        {"schedule": "wsd"},
        {"schedule": "linear"},
        {"layer_decay": 0.8},
    ],
    ids=str,
)
def test_every_choice_trains(tmp_path: Path, options: dict[str, Any]) -> None:
    result = train(StubKernel(dropout=0.1), NextId(), examples(40), config(**options), valid=VALID, folder=tmp_path)
    assert all(math.isfinite(row.get("loss", 0.0)) for row in result.history)
    assert result.steps == 12


def test_trap_04_evaluation_does_not_depend_on_the_batch() -> None:
    kernel, found = StubKernel(dtype=torch.float64).train(), []
    for micro_batch in (1, 2, 5, 21, 64):
        found.append(evaluate(kernel, NextId(), VALID, Setting(torch.device("cpu"), micro_batch=micro_batch)))  # type: ignore[arg-type]
        assert kernel.training
    for one in found:
        assert one["loss"] == pytest.approx(found[0]["loss"], abs=1e-9)
        assert one["accuracy"] == found[0]["accuracy"]


def test_trap_33_frozen_weights_stay_and_all_others_change(tmp_path: Path) -> None:
    kernel = StubKernel()
    before = weights(kernel)
    train(kernel, NextId(), examples(40), config(freeze=("embed", "blocks.0.*")), folder=tmp_path)
    frozen = {"embed.weight", "blocks.0.weight", "blocks.0.bias"}
    for name, after in weights(kernel).items():
        assert torch.equal(before[name], after) == (name in frozen), name
    assert all(parameter.requires_grad for parameter in kernel.parameters())


def test_trap_33_frozen_weights_stay_under_bfloat16(tmp_path: Path) -> None:
    kernel = StubKernel()
    before = kernel.embed.weight.detach().clone()
    train(kernel, NextId(), examples(40), config(freeze=["embed"], precision="bf16"), folder=tmp_path)
    assert torch.equal(before, kernel.embed.weight)


def test_trap_30_the_schedule_moves_once_per_step_however_the_batch_is_cut(tmp_path: Path) -> None:
    rates = []
    for micro_batch in (1, 8):
        found = train(
            StubKernel(),
            NextId(),
            examples(40),
            config(log_every=1, micro_batch=micro_batch),
            folder=tmp_path / str(micro_batch),
        )
        rates.append([row["lr"] for row in found.history])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 12


class Exploding(NextId):
    """The loss of one step is NaN."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
        loss = super().loss(kernel, batch)
        self.left -= 1
        return loss if self.left else Loss(loss.sum * math.nan, loss.count, loss.metrics)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    kernel = StubKernel()
    with pytest.raises(TrainingError, match="step 8: the loss is nan") as error:
        train(kernel, Exploding(8), examples(40), config(checkpoint_every=3), folder=tmp_path)
    assert error.value.remedy.endswith(f"; the last good checkpoint is {tmp_path / 'step-00000006'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000006"]
    assert all(bool(weight.isfinite().all()) for weight in kernel.parameters())


def test_a_run_that_diverges_at_once_promises_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 1: the loss is nan") as error:
        train(StubKernel(), Exploding(1), examples(40), config(checkpoint_every=3), folder=tmp_path)
    assert error.value.remedy.endswith("; no checkpoint was good")


class Scripted(NextId):
    """Evaluations report the values given, in this order."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = iter(values)

    def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
        loss = super().loss(kernel, batch)
        if kernel.training:
            return loss
        return Loss(loss.sum, loss.count, {"score": (torch.tensor(next(self.values)), torch.tensor(1))})


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    options = {"eval_every": 2, "patience": 2, "metric": "score", "mode": "max", "max_steps": 100}
    kernel = StubKernel()
    values = [0.1, 0.5, math.nan, 0.4, 0.9]
    result = train(kernel, Scripted(values), examples(40), config(**options), valid=VALID[:8], folder=tmp_path)
    assert (result.steps, result.stopped_because) == (8, "early")
    assert result.best is not None
    assert (result.best.step, result.best.value) == (4, 0.5)
    reference = StubKernel()
    short = config(**{**options, "final": "last"})
    with pytest.raises(StopIteration):  # the script ends after the evaluation at step 4
        train(reference, Scripted(values[:2]), examples(40), short, valid=VALID[:8], folder=tmp_path / "other")
    state = torch.load(tmp_path / "other" / "step-00000004" / "state.pt", weights_only=True)
    for name, weight in weights(kernel).items():
        assert torch.equal(weight, state["learner"]["weights"][name])


def test_trap_45_a_checkpoint_precedes_every_evaluation(tmp_path: Path) -> None:
    present: list[list[str]] = []

    class Watching(NextId):
        def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
            if not kernel.training:
                present.append(sorted(path.name for path in tmp_path.glob("step-*")))
            return super().loss(kernel, batch)

    train(StubKernel(), Watching(), examples(40), config(eval_every=6), valid=VALID[:4], folder=tmp_path)
    assert [names[-1] for names in present] == ["step-00000006", "step-00000012"]


def test_trap_45_what_is_saved_has_the_format_of_the_masters(tmp_path: Path) -> None:
    train(StubKernel(), NextId(), examples(40), config(precision="bf16"), folder=tmp_path)
    state = torch.load(tmp_path / "step-00000012" / "state.pt", weights_only=True)
    assert {weight.dtype for weight in state["learner"]["weights"].values()} == {torch.float32}


def test_the_average_is_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    kernel = StubKernel()
    result = train(kernel, NextId(), examples(40), config(ema=0.99, final="last"), valid=VALID, folder=tmp_path)
    again = evaluate(kernel, NextId(), VALID, Setting(torch.device("cpu")))  # type: ignore[arg-type]
    last = next(row for row in reversed(result.history) if "valid_loss" in row)
    assert again["loss"] == pytest.approx(last["valid_loss"], rel=1e-6)
    state = torch.load(tmp_path / "step-00000012" / "state.pt", weights_only=True)["learner"]
    assert not torch.equal(state["average"]["head.weight"], state["weights"]["head.weight"])
    assert torch.equal(kernel.head.weight, state["average"]["head.weight"])


def test_a_run_bounded_by_time_ends_and_says_so(tmp_path: Path) -> None:
    result = train(StubKernel(), NextId(), examples(40), TrainConfig(max_seconds=0.2, batch_size=8), folder=tmp_path)
    assert result.stopped_because == "time"
    assert result.steps > 0
    again = train(StubKernel(), NextId(), examples(40), TrainConfig(max_seconds=0.2, batch_size=8), folder=tmp_path)
    assert again.steps == result.steps


def test_epochs_may_be_fractions(tmp_path: Path) -> None:
    result = train(
        StubKernel(), NextId(), examples(40), TrainConfig(epochs=1.5, batch_size=8), valid=VALID, folder=tmp_path
    )
    assert result.steps == 8
    assert [row["step"] for row in result.history if "valid_loss" in row] == [5, 8]


def test_out_of_memory_becomes_a_remedy(tmp_path: Path) -> None:
    class Hungry(NextId):
        def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
            torch.empty(1 << 60, dtype=torch.uint8)
            return super().loss(kernel, batch)

    with pytest.raises(ResourceError, match="out of memory with micro batches of 4") as error:
        train(StubKernel(), Hungry(), examples(40), config(micro_batch=4), folder=tmp_path)
    assert "set micro_batch to 2" in error.value.remedy


def test_mistakes_are_told_with_a_remedy(tmp_path: Path) -> None:
    def run(rows: Any = VALID, valid: Any = (), **options: Any) -> None:
        train(StubKernel(), NextId(), rows, config(**options), valid=valid, folder=tmp_path)

    with pytest.raises(DataError, match="no training examples"):
        run(rows=[])
    with pytest.raises(ConfigError, match=r"'blcks\.0' matches no parameter") as error:
        run(freeze=("blcks.0",))
    assert "blocks.0" in error.value.remedy
    with pytest.raises(ConfigError, match="nothing to train"):
        run(freeze=("*",))
    with pytest.raises(ConfigError, match="need validation examples"):
        run(patience=2)
    with pytest.raises(ConfigError, match="CUDA"):
        run(precision="fp16")
    with pytest.raises(ConfigError, match="no metric 'f1'") as error:
        run(valid=VALID, metric="f1")
    assert "accuracy" in error.value.remedy


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    train(StubKernel(), NextId(), examples(40), config(), folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"lr was 0\.01, and is 0\.02"):
        train(StubKernel(), NextId(), examples(40), config(lr=0.02), folder=tmp_path)
    with pytest.raises(CheckpointError, match="examples was 40, and is 39"):
        train(StubKernel(), NextId(), examples(39), config(), folder=tmp_path)
    train(StubKernel(), NextId(), examples(40), config(workers=1, keep_checkpoints=5), folder=tmp_path)


def test_a_world_of_one_needs_no_other() -> None:
    assert World.join(torch.device("cpu")) == World(0, 1)
