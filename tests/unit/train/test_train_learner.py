"""One step of the learner: overflow under loss scaling, compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_stub import NextId, StubBatch, StubKernel, examples, weights

from nacre.errors import TrainingError
from nacre.progress import Silent
from nacre.train.config import TrainConfig
from nacre.train.distributed import World
from nacre.train.learner import Learner
from nacre.train.loader import Steps
from nacre.train.loop import train
from nacre.train.objective import Loss
from nacre.train.order import Order
from nacre.train.resolve import resolve
from nacre.train.scaler import LossScaler


class Overflowing(NextId):
    """The gradient of the first `times` passes is infinite, as an overflow of float16 makes it."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
        loss = super().loss(kernel, batch)
        self.times -= 1
        return Loss(loss.sum * torch.inf, loss.count) if self.times >= 0 else loss


def learner_of(objective: NextId, **options: Any) -> tuple[Learner, Steps, StubKernel]:
    config = TrainConfig.of(**{"max_steps": 4, "batch_size": 8, "lr": 0.01, **options})
    kernel = StubKernel(dropout=0.2)
    resolved = resolve(config, 16, 0, World(), torch.device("cpu"))
    steps = Steps(objective, examples(16), Order(16, 8, resolved.micro_batch, 0))
    return Learner(kernel, objective, config, resolved, Silent()), steps, kernel  # type: ignore[arg-type]


def test_trap_29_a_step_that_overflowed_is_taken_again_and_equals_one_that_did_not() -> None:
    results = []
    for times in (0, 3):
        learner, steps, kernel = learner_of(Overflowing(times))
        learner.scaler = LossScaler(scale=1024.0)
        parts = steps[0]
        loss, norm = learner.update(0, parts, sum(part.count for part in parts), 1.0)
        results.append((float(loss), float(norm), weights(kernel), learner.scaler.scale))
    (loss, norm, after, scale), (loss_again, norm_again, after_again, scale_again) = results
    assert (scale, scale_again) == (1024.0, 128.0)
    assert loss == loss_again
    assert norm == pytest.approx(norm_again, rel=1e-5)
    for name, weight in after.items():
        torch.testing.assert_close(after_again[name], weight, rtol=1e-5, atol=1e-7)


def test_trap_29_an_overflow_without_end_is_an_error() -> None:
    learner, steps, kernel = learner_of(Overflowing(100))
    learner.scaler = LossScaler(scale=16.0)
    before = weights(kernel)
    with pytest.raises(TrainingError, match="step 1 is not finite even without loss scaling"):
        learner.update(0, steps[0], 1, 1.0)
    assert all(torch.equal(before[name], weight) for name, weight in weights(kernel).items())


@pytest.mark.slow
def test_trap_35_compiled_code_computes_the_same_and_settles(tmp_path: Path) -> None:
    """Texts of unequal length and a short last batch, yet nothing is compiled anew after the third step."""
    compiled_at: list[int] = []

    class Watched(NextId):
        def collate(self, rows, rng):  # type: ignore[no-untyped-def]
            compiled_at.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
            return super().collate(rows, rng)

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    histories = []
    for compiled in (False, True):
        config = TrainConfig(max_steps=12, batch_size=8, lr=0.02, log_every=1, compile=compiled)
        result = train(StubKernel(), Watched(), examples(44), config, folder=tmp_path / str(compiled))
        histories.append([row["loss"] for row in result.history])
    assert histories[1] == pytest.approx(histories[0], rel=1e-4)
    assert compiled_at[-1] > 0
    assert compiled_at[12 + 4] == compiled_at[-1]
