"""The learning rate as a pure function of how much of the run is done."""

from __future__ import annotations

import math

from nacre.train.config import TrainConfig


def rate_factor(done: float, config: TrainConfig) -> float:
    """The factor of every learning rate when the share `done` of the run, in [0, 1], is done.

    Linear warm-up from 0, then `constant`, `linear`, `cosine` (Loshchilov and Hutter 2017, without restarts) or
    `wsd` (warmup-stable-decay, Hu et al. 2024: constant, then linear over the last `decay` of the run), down to
    `final_lr`. No state: a resumed run cannot be out of step with its schedule.
    """
    if done < config.warmup:
        return done / config.warmup
    if config.schedule == "constant":
        return 1.0
    start = 1 - config.decay if config.schedule == "wsd" else config.warmup
    if done <= start or start >= 1:
        return 1.0
    left = max(0.0, 1 - (done - start) / (1 - start))
    if config.schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return config.final_lr + (1 - config.final_lr) * left


def share_done(step: int, total: int | None, seconds: float, config: TrainConfig) -> float:
    """The share of the run at the middle of optimiser step `step` (0-based): no step has rate 0 by accident.

    Of a run bounded by steps and by seconds, the bound that is nearer counts.
    """
    by_step = (step + 0.5) / total if total else 0.0
    by_clock = seconds / config.max_seconds if config.max_seconds else 0.0
    return min(1.0, max(by_step, by_clock))
