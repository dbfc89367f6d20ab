"""What a training run can be told. This file is the only place that holds a default."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import Any, ClassVar

from nacre.errors import ConfigError, closest

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("constant", "linear", "cosine", "wsd")
PRECISIONS = ("auto", "float32", "bf16_autocast", "bf16", "fp16")

# Changing one of these between a kill and a resume changes nothing that was trained.
NEUTRAL = frozenset({"workers", "checkpoint_every", "checkpoint_seconds", "keep_checkpoints"})


@dataclass(frozen=True)
class TrainConfig:
    """One training run; checked when it is made (ConfigError with a remedy).

    The length is bounded by `max_steps`, `epochs` and `max_seconds`; at least one is set and the first that is
    reached ends the run. A run bounded by seconds follows the clock in its schedule too, so only runs bounded by
    steps or epochs are reproducible.
    """

    INSTEAD: ClassVar = (("max_steps", "epochs", "max_seconds"),)  # a length that is given is the only one

    # Length.
    max_steps: int | None = None  # optimiser steps
    epochs: float | None = None  # passes over the examples
    max_seconds: float | None = (
        None  # of wall time inside the loop, evaluation and compilation included; adds up over resumes
    )

    # Batches. One optimiser step trains `batch_size` examples, over all processes, in parts of `micro_batch`.
    batch_size: int = 32
    micro_batch: int | None = None  # examples of one forward pass; None: the batch divided by the processes
    bucket: bool = False  # examples of like length share a micro batch: less padding, the same examples
    shuffle: bool = True
    workers: int = 0  # processes that collate; the batches do not depend on it

    # Optimiser.
    optimizer: str = "adamw"
    lr: float = 5e-4  # of Adam, AdamW and SGD, and of what Muon does not take
    muon_lr: float = 1e-2  # of hidden matrices under `muon`
    weight_decay: float = 0.01  # of matrices; norms, biases and other 1-D parameters never decay
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.95  # of SGD and Muon
    clip_norm: float | None = 1.0  # of the whole gradient, over all processes
    freeze: tuple[str, ...] = ()  # glob patterns over parameter names, e.g. "layers.0.*"
    unfreeze_every: int | None = None  # steps after which one more layer is trained, the top first; None: all at once
    layer_decay: float = 1.0  # each layer's rate is this factor of the rate of the layer above it

    # Schedule. `warmup` and `decay` are shares of the run, in [0, 1].
    schedule: str = "cosine"
    warmup: float = 0.05
    decay: float = 0.2  # the last part of `wsd`
    final_lr: float = 0.0  # as a factor of the rate

    # Speed and memory.
    precision: str = "float32"
    compile: bool = False
    checkpoint_activations: bool = False

    # Weights kept.
    ema: float = 0.0  # decay per step of an average of the weights; 0: none. Evaluation and result use the average.
    final: str = "auto"  # weights left in the kernel: `last`, `best`; auto: best where something was evaluated

    # Evaluation and early stopping.
    eval_every: int | None = None  # steps; None: at the end of each epoch, or a tenth of `max_steps`
    metric: str = "loss"  # of the evaluation; decides `best`
    mode: str = "min"  # `min` or `max` of that metric is better
    patience: int | None = None  # evaluations without improvement before the run stops
    min_delta: float = 0.0  # smaller changes are no improvement

    # Records.
    log_every: int = 10  # steps
    checkpoint_every: int | None = None  # steps; besides before each evaluation, at the end and when interrupted
    checkpoint_seconds: float = 60.0  # and after so much time: what a kill can cost
    keep_checkpoints: int = 2  # newest ones; the best is kept besides
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        for listed in ("betas", "freeze"):
            object.__setattr__(self, listed, tuple(getattr(self, listed)))
        _check_choices(self)
        _check_ranges(self)
        _check_together(self)

    @classmethod
    def of(cls, **values: Any) -> TrainConfig:
        """A config from keys that a person wrote: an unknown key names the closest known one."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown training option {key!r}", remedy=closest(key, known))
        return cls(**values)


def _refuse(config: TrainConfig, name: str, remedy: str) -> ConfigError:
    return ConfigError(f"training option {name} = {getattr(config, name)!r} cannot be used", remedy=remedy)


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "give a whole number"),
    "float": ((int, float), "give a number (YAML reads 2e-4 as text: write 2.0e-4)"),
    "bool": ((bool,), "give true or false"),
    "str": ((str,), "give a name"),
    "tuple": ((tuple, list), "give a list"),
}


def _check_types(config: TrainConfig) -> None:
    for field in fields(config):
        value, declared = getattr(config, field.name), str(field.type)
        allowed, remedy = _KINDS[declared.split("[")[0].split(" ")[0]]
        if value is None and "None" in declared:
            continue
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise _refuse(config, field.name, remedy)


def _check_choices(config: TrainConfig) -> None:
    choices = {
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "precision": PRECISIONS,
        "mode": ("min", "max"),
        "final": ("auto", "last", "best"),
    }
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise _refuse(config, name, closest(str(getattr(config, name)), known))


def _check_ranges(config: TrainConfig) -> None:
    positive = ["max_steps", "epochs", "max_seconds", "batch_size", "micro_batch", "lr", "muon_lr", "eps", "clip_norm"]
    positive += ["eval_every", "patience", "log_every", "checkpoint_every", "checkpoint_seconds", "keep_checkpoints"]
    positive += ["unfreeze_every"]
    for name in positive:
        value = getattr(config, name)
        if value is not None and not 0 < value < inf:
            raise _refuse(config, name, "give a number above 0, not infinity")
    for name in ("weight_decay", "workers", "min_delta", "seed"):
        if getattr(config, name) < 0:
            raise _refuse(config, name, "give 0 or more")
    for name in ("warmup", "decay", "final_lr"):
        if not 0 <= getattr(config, name) <= 1:
            raise _refuse(config, name, "give a share between 0 and 1")
    for name in ("ema", "momentum"):
        if not 0 <= getattr(config, name) < 1:
            raise _refuse(config, name, "give a number from 0 up to, not including, 1")
    if not 0 < config.layer_decay <= 1:
        raise _refuse(config, "layer_decay", "give a factor above 0 and at most 1 (1: every layer the same rate)")
    if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
        raise _refuse(config, "betas", "give two numbers from 0 up to, not including, 1")


def _check_together(config: TrainConfig) -> None:
    if config.max_steps is None and config.epochs is None and config.max_seconds is None:
        raise ConfigError("the training run has no end", remedy="set max_steps, epochs or max_seconds")
    if config.micro_batch is not None and config.batch_size % config.micro_batch:
        raise ConfigError(
            f"batch_size {config.batch_size} is not a multiple of micro_batch {config.micro_batch}",
            remedy=f"set batch_size to {max(1, config.batch_size // config.micro_batch) * config.micro_batch}",
        )
    if config.unfreeze_every is not None and config.compile:
        raise ConfigError(
            "a run that unfreezes layer by layer is not compiled: each layer would compile it anew",
            remedy="compile: false, or leave unfreeze_every out",
        )
    if config.warmup + (config.decay if config.schedule == "wsd" else 0.0) > 1:
        raise ConfigError(
            f"warmup {config.warmup} and decay {config.decay} together are longer than the run",
            remedy="make warmup + decay at most 1",
        )
