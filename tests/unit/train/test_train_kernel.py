"""The loop around the real kernel: every precision, tied weights, resume with dropout, initial loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from train_stub import NextId, StubBatch, examples, weights

from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.loss import head_cross_entropy
from nacre.train.objective import Loss
from nacre.train.result import Interrupted, TrainResult

SIZES = {"vocab_size": 17, "hidden_size": 16, "layers": 2, "heads": 2, "ffn_size": 32, "max_positions": 16}


class NextToken(NextId):
    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.left = stop_after

    def loss(self, kernel: Any, batch: StubBatch) -> Loss:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Interrupted(0, Path())
        hidden = kernel(batch.ids).hidden.flatten(0, 1)
        return Loss(*head_cross_entropy(kernel.lm_logits, hidden, batch.targets.flatten()))


def run(folder: Path, family: str, objective: NextId | None = None, **options: Any) -> tuple[Kernel, TrainResult]:
    kernel = Kernel(preset(family, **SIZES), torch.Generator().manual_seed(0))
    config = TrainConfig.of(
        **{"max_steps": 30, "batch_size": 8, "lr": 0.01, "log_every": 1, "muon_lr": 0.02, **options}
    )
    return kernel, train(kernel, objective or NextToken(), examples(64), config, folder=folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["float32", "bf16_autocast", "bf16"])
@pytest.mark.parametrize("family", ["llama2", "gpt2", "qwen3"])
def test_every_precision_learns_the_same(tmp_path: Path, family: str, precision: str) -> None:
    kernel, result = run(tmp_path, family, precision=precision, optimizer="muon")
    losses = [row["loss"] for row in result.history]
    assert losses[0] == pytest.approx(math.log(17), rel=0.05)
    assert losses[-1] < 0.85 * losses[0]
    assert {parameter.dtype for parameter in kernel.parameters()} == {torch.float32}
    _, exact = run(tmp_path / "exact", family, optimizer="muon")
    assert losses == pytest.approx([row["loss"] for row in exact.history], rel=0.03)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    kernel, _ = run(tmp_path, "gpt2", precision="bf16", ema=0.9)
    assert kernel.embed.tokens is not None
    hidden = torch.randn(1, 1, 16)
    torch.testing.assert_close(kernel.lm_logits(hidden), hidden @ kernel.embed.tokens.weight.T)
    assert not any("lm_head" in name for name, _ in kernel.named_parameters())


@pytest.mark.parametrize("options", [{}, {"optimizer": "muon", "precision": "bf16", "micro_batch": 2}], ids=str)
def test_trap_44_the_real_kernel_resumes_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    options = {"checkpoint_every": 7, **options}
    whole, result = run(tmp_path / "whole", "gpt2", **options)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", "gpt2", NextToken(stop_after=50 if "micro_batch" in options else 18), **options)
    cut, resumed = run(tmp_path / "cut", "gpt2", **options)
    assert result.history == resumed.history
    assert all(torch.equal(weight, weights(cut)[name]) for name, weight in weights(whole).items())


def test_trap_33_parts_of_the_real_kernel_freeze(tmp_path: Path) -> None:
    before = weights(Kernel(preset("llama2", **SIZES), torch.Generator().manual_seed(0)))
    kernel, _ = run(tmp_path, "llama2", freeze=("embed", "decoder.layers.0", "*norm*"), layer_decay=0.9)
    for name, after in weights(kernel).items():
        frozen = name.startswith(("embed.", "decoder.layers.0.")) or "norm" in name
        assert torch.equal(before[name], after) == frozen, name


def test_recomputed_activations_train_the_same_model_with_dropout(tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "plain", "gpt2")
    recomputed, _ = run(tmp_path / "recomputed", "gpt2", checkpoint_activations=True)
    assert all(torch.equal(weight, weights(recomputed)[name]) for name, weight in weights(plain).items())
