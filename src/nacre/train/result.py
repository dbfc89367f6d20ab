"""What a training run returns, and how a run that was asked to stop says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.errors import TrainingError


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

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(
            f"training was interrupted after step {step}; its checkpoint is {folder}",
            remedy="run the same command again: training goes on from there",
        )
        self.step = step
