"""Loss and metrics over held-out examples, independent of how they are batched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nacre.train.distributed import World
from nacre.train.loader import collate_part
from nacre.train.objective import Objective
from nacre.train.order import generator_of
from nacre.train.precision import autocast

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class Setting:
    """Where and how an evaluation computes. `seed` fixes what an objective draws (masks): each evaluation the same."""

    device: torch.device
    precision: str = "float32"
    micro_batch: int = 32
    seed: int = 0
    world: World = field(default_factory=World)


def evaluate(
    kernel: Kernel,
    objective: Objective[Any, Any],
    examples: Sequence[Any],
    setting: Setting,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """`loss` and the metrics of the objective, each the sum over all examples divided by its count.

    The kernel is left in the mode it was in. `between` is called after each batch and may raise to stop.
    Examples are taken by length, so that batches hold little padding.
    """
    by_length = sorted(range(len(examples)), key=lambda row: objective.length(examples[row]))
    # One stream of random numbers over a fixed order: its draws do not start anew with every batch.
    rng = generator_of("valid", setting.seed)
    sums: defaultdict[str, list[Tensor]] = defaultdict(list)
    was_training = kernel.training
    kernel.eval()
    try:
        # Compiled code is for the shapes and the mode of training; compiling anew for these costs more than it saves.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for number, start in enumerate(range(0, len(examples), setting.micro_batch)):
                rows = by_length[start : start + setting.micro_batch]
                part = collate_part(objective, [examples[row] for row in rows], rng, number)
                if number % setting.world.size == setting.world.rank:
                    _add(sums, kernel, objective, part.batch.to(setting.device), setting)
                between()
    finally:
        kernel.train(was_training)
    return _divided(sums, setting)


def _add(
    sums: defaultdict[str, list[Tensor]],
    kernel: Kernel,
    objective: Objective[Any, Any],
    batch: Any,
    setting: Setting,
) -> None:
    with autocast(setting.precision, setting.device):
        loss = objective.loss(kernel, batch)
    for name, (total, count) in {"loss": (loss.sum, loss.count), **loss.metrics}.items():
        pair = torch.stack([torch.as_tensor(total).double(), torch.as_tensor(count).double()])
        sums[name].append(pair)


def _divided(sums: dict[str, list[Tensor]], setting: Setting) -> dict[str, float]:
    """Every process knows the same names: each has at least one batch, or adds nothing to those of the first."""
    totals = {name: torch.stack(pairs).sum(0) for name, pairs in sums.items()}
    if setting.world.size > 1:
        totals = setting.world.sum_named(totals, setting.device)
    result: dict[str, float] = {}
    for name, total in totals.items():
        value, count = total.tolist()
        result[name] = value / count if count else float("nan")
    return result
