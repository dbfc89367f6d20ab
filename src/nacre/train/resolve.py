"""What the open values of a config become on this machine and these data, as one table that is reported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from nacre.errors import ConfigError
from nacre.train.config import TrainConfig
from nacre.train.distributed import World
from nacre.train.precision import resolve_precision


@dataclass(frozen=True)
class Resolved:
    """Every `None` and `auto` of a TrainConfig, decided."""

    device: torch.device
    world: World
    precision: str
    precision_because: str
    micro_batch: int
    steps_per_epoch: int
    total_steps: int | None  # None: the clock alone ends the run
    eval_every: int | None  # None: nothing to evaluate
    final: str

    def table(self) -> dict[str, Any]:
        """For the progress report."""
        return {
            "device": str(self.device),
            "processes": self.world.size,
            "threads": torch.get_num_threads(),
            "precision": self.precision,
            "precision_because": self.precision_because,
            "micro_batch": self.micro_batch,
            "steps_per_epoch": self.steps_per_epoch,
            "total_steps": self.total_steps,
            "eval_every": self.eval_every,
            "final": self.final,
        }


def resolve(config: TrainConfig, n_examples: int, n_valid: int, world: World, device: torch.device) -> Resolved:
    """Decides what the config left open. ConfigError where its wishes need validation examples and there are none."""
    precision, because = resolve_precision(config.precision, device)
    steps_per_epoch = -(-n_examples // config.batch_size)
    bounds = [config.max_steps, math.ceil(config.epochs * steps_per_epoch) if config.epochs else None]
    total = min((bound for bound in bounds if bound is not None), default=None)
    if not n_valid and (config.patience is not None or config.final == "best"):
        raise ConfigError(
            "patience and final: best need validation examples, and there are none",
            remedy="give validation data, or leave out patience and set final to last",
        )
    eval_every = config.eval_every
    if eval_every is None:
        eval_every = steps_per_epoch if config.epochs or total is None else max(1, total // 10)
    return Resolved(
        device=device,
        world=world,
        precision=precision,
        precision_because=because,
        micro_batch=config.micro_batch or _even_part(config.batch_size, world.size),
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        eval_every=eval_every if n_valid else None,
        final=config.final if config.final != "auto" else ("best" if n_valid else "last"),
    )


def _even_part(batch_size: int, processes: int) -> int:
    """The largest part of a batch that divides it and leaves none of the processes idle, where that is possible."""
    return max(part for part in range(1, batch_size + 1) if batch_size % part == 0 and part * processes <= batch_size)
