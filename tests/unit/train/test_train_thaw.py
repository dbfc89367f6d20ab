"""Gradual unfreezing: which parameters change at which step, from the top."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_stub import NextId, StubKernel, examples, weights

from nacre.errors import ConfigError
from nacre.train.config import TrainConfig
from nacre.train.loop import train

GROUPS = (("head", "norm"), ("blocks.1",), ("blocks.0",), ("embed",))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 7, 9])
def test_one_more_layer_every_two_steps(steps: int, tmp_path: Path) -> None:
    kernel = StubKernel()
    before = {name: one.clone() for name, one in weights(kernel).items()}
    config = TrainConfig(max_steps=steps, batch_size=8, lr=0.02, warmup=0.0, unfreeze_every=2, schedule="constant")
    train(kernel, NextId(), examples(30), config, folder=tmp_path)
    changed = {name for name, one in weights(kernel).items() if not torch.equal(one, before[name])}
    open_ = [prefix for group in GROUPS[: 1 + (steps - 1) // 2] for prefix in group]
    assert changed == {name for name in before if name.rpartition(".")[0] in open_}
    assert all(parameter.requires_grad for parameter in kernel.parameters())


def test_what_is_frozen_for_good_stays_so(tmp_path: Path) -> None:
    kernel = StubKernel()
    before = {name: one.clone() for name, one in weights(kernel).items()}
    config = TrainConfig(max_steps=6, batch_size=8, unfreeze_every=1, freeze=("blocks.1",))
    train(kernel, NextId(), examples(30), config, folder=tmp_path)
    assert torch.equal(weights(kernel)["blocks.1.weight"], before["blocks.1.weight"])
    assert not torch.equal(weights(kernel)["blocks.0.weight"], before["blocks.0.weight"])


def test_it_is_not_compiled_and_not_zero() -> None:
    with pytest.raises(ConfigError, match="unfreezes"):
        TrainConfig(max_steps=1, unfreeze_every=5, compile=True)
    with pytest.raises(ConfigError, match="unfreeze_every"):
        TrainConfig(max_steps=1, unfreeze_every=0)
