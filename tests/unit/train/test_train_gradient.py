"""The gradient of a step is a fact about its examples, not about how they were cut into parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from train_stub import NextId, StubKernel, examples, weights

from nacre.train.config import TrainConfig
from nacre.train.loop import train

# Plain gradient descent at rate 1: what a step changes is the gradient.
PLAIN = {"optimizer": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None}
PLAIN |= {"schedule": "constant", "warmup": 0.0, "shuffle": False}


def one_step(tmp_path: Path, rows: list[tuple[int, ...]], **options: object) -> dict[str, Tensor]:
    """The gradient of one step over `rows`, by name."""
    kernel = StubKernel(dtype=torch.float64)
    before = weights(kernel)
    config = TrainConfig.of(**{**PLAIN, "max_steps": 1, "batch_size": 8, **options})
    train(kernel, NextId(), rows, config, folder=tmp_path)
    return {name: before[name] - after for name, after in weights(kernel).items()}


def test_trap_01_accumulation_changes_no_gradient(tmp_path: Path) -> None:
    rows = [row[: 3 + 2 * (i // 4) * 3] for i, row in enumerate(examples(8, longest=12))]
    whole = one_step(tmp_path / "whole", rows)
    assert sum(gradient.abs().sum() for gradient in whole.values()) > 1e-3
    for micro_batch in (1, 2, 4):
        parts = one_step(tmp_path / str(micro_batch), rows, micro_batch=micro_batch)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-6)


def test_trap_02_a_window_cut_short_keeps_its_gradient(tmp_path: Path) -> None:
    rows = examples(4)
    short = one_step(tmp_path / "short", rows, batch_size=8, micro_batch=2)
    exact = one_step(tmp_path / "exact", rows, batch_size=4, micro_batch=4)
    for name, gradient in exact.items():
        torch.testing.assert_close(short[name], gradient, rtol=0, atol=1e-9)


def test_trap_05_a_part_without_targets_adds_nothing(tmp_path: Path) -> None:
    rows = examples(4)
    untrained = [tuple(-i - 1 for i in row) for row in examples(4, seed=1)]
    with_nothing = one_step(tmp_path / "a", rows + untrained, micro_batch=4)
    alone = one_step(tmp_path / "b", rows, batch_size=4)
    for name, gradient in alone.items():
        torch.testing.assert_close(with_nothing[name], gradient, rtol=0, atol=1e-9)


def test_trap_05_a_step_without_targets_is_finite_and_reported(tmp_path: Path) -> None:
    untrained = [tuple(-i - 1 for i in row) for row in examples(4)]
    gradient = one_step(tmp_path, untrained, micro_batch=2)
    assert all(bool((value == 0).all()) for value in gradient.values())


def test_checkpointed_activations_change_no_gradient(tmp_path: Path) -> None:
    rows = examples(8)
    plain = one_step(tmp_path / "plain", rows)
    recomputed = one_step(tmp_path / "recomputed", rows, checkpoint_activations=True)
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


@pytest.mark.parametrize("workers", [0, 2])
def test_grouping_by_length_trains_each_example_once_an_epoch(tmp_path: Path, workers: int) -> None:
    rows = examples(30)
    seen: list[tuple[int, ...]] = []

    class Watched(NextId):
        def loss(self, kernel, batch):  # type: ignore[no-untyped-def]
            seen.extend(tuple(row[row > 0].tolist()) for row in batch.targets)
            return super().loss(kernel, batch)

    config = TrainConfig(epochs=1, batch_size=8, micro_batch=2, bucket=True, workers=workers)
    train(StubKernel(), Watched(), rows, config, folder=tmp_path)
    assert sorted(seen) == sorted(tuple(i for i in row[1:] if i > 0) for row in rows)


def test_the_norm_that_is_clipped_is_that_of_the_whole_window(tmp_path: Path) -> None:
    rows = examples(8)
    free = one_step(tmp_path / "free", rows, micro_batch=2)
    norm = float(torch.stack([gradient.norm() for gradient in free.values()]).norm())
    clipped = one_step(tmp_path / "clipped", rows, micro_batch=2, clip_norm=norm / 4)
    for name, gradient in free.items():
        torch.testing.assert_close(clipped[name], gradient / 4, rtol=1e-4, atol=1e-9)


def test_bfloat16_weights_accumulate_in_float32(tmp_path: Path) -> None:
    """A part's gradient may be small beside the sum; added up in bfloat16 it would vanish."""
    rows = examples(64, seed=3)

    def step(name: str, **options: object) -> dict[str, Tensor]:
        kernel = StubKernel()
        before = weights(kernel)
        config = TrainConfig.of(**{**PLAIN, "max_steps": 1, "batch_size": 64, **options})
        train(kernel, NextId(), rows, config, folder=tmp_path / name)
        assert all(parameter.dtype == torch.float32 for parameter in kernel.parameters())
        return {name: before[name] - after for name, after in weights(kernel).items()}

    exact, lowered = step("exact"), step("lowered", precision="bf16", micro_batch=1)
    for name, gradient in exact.items():
        assert (lowered[name] - gradient).norm() <= 0.02 * gradient.norm() + 1e-6, name
