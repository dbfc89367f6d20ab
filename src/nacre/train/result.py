"""What a training run returns, and how a run that was asked to stop says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.errors import TrainingError
from nacre.kernel.anatomy import anatomy
from nacre.kernel.config import KernelConfig


@dataclass(frozen=True)
class Evaluated:
    """The best evaluation of a run."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True)
class TrainResult:
    """What a run did. Everything but `seconds` and `peak_memory_mib` is the same after a kill and a resume.

    `history`: rows with `step` and either `loss`, `lr`, `grad_norm`, `tokens` (training, averaged over the steps since
    the row before) or `valid_loss` and further `valid_...` (evaluation). `stopped_because` is `done`, `early` or
    `time`. `steps` counts optimiser steps, `tokens` the real positions trained on.
    """

    steps: int
    history: list[dict[str, Any]]
    best: Evaluated | None
    tokens: int
    seconds: float
    flops: float
    peak_memory_mib: float
    stopped_because: str


class Interrupted(TrainingError):
    """The run was asked to stop (Ctrl-C, SIGTERM); a checkpoint holds everything up to `step`."""

    exit_code = 130  # as the shell has it for every interrupted command

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(
            f"training was interrupted after step {step}; its checkpoint is {folder}",
            remedy="run the same command again: training goes on from there",
        )
        self.step = step


def training_flops(config: KernelConfig, tokens: int, mean_length: float) -> float:
    """Operations of training on `tokens` positions in texts of `mean_length`: each three forward passes.

    What freezing saves and what recomputed activations cost is not counted.
    """
    forward = anatomy(config, context=max(1, round(mean_length))).flops_per_token
    return 3.0 * sum(forward.values()) * tokens
