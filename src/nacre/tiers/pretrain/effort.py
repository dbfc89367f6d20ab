"""What an effort means in numbers, and which family of kernel solves which kind of task. Light.

Operations rather than seconds, so that a run is the same on a busy machine and on an idle one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nacre.errors import ConfigError, closest
from nacre.recipe.scaling import Shape

if TYPE_CHECKING:
    from nacre.metrics.quality import Kind


@dataclass(frozen=True)
class Effort:
    """`flops` of training; `passes`: the most over the labelled rows; `tries_warm_up`: validation decides about it."""

    flops: float
    passes: int
    tries_warm_up: bool = False


# Two cores without bfloat16 train kernels of this size at some 20 to 40 GFLOP/s: about a minute, eight, forty.
EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(1.2e12, 30),
    "normal": Effort(1.5e13, 45),
    "thorough": Effort(8e13, 60, tries_warm_up=True),
}


@dataclass(frozen=True)
class Recipe:
    """How a kind of task is trained; figures found on the validation rows of several tasks."""

    preset: str
    least: Shape  # smaller kernels lose more than they save
    batch_size: int
    lr: float
    longest: int  # tokens of a text, at most
    choices: Mapping[str, Any] = field(default_factory=dict)  # of KernelConfig, besides the sizes


RECIPES: Mapping[Kind, Recipe] = {
    "classify": Recipe("bert", Shape(128, 2, 4), 64, 1e-3, 256),
    "tag": Recipe("bert", Shape(128, 2, 4), 32, 1e-3, 256),
    "generate": Recipe("t5-v1.1", Shape(128, 2, 4), 64, 2e-3, 192),
    # Search from scratch lives in wide embeddings: one thin layer over them, and steps rather than depth.
    "rank": Recipe("bert", Shape(256, 1, 4), 128, 2e-3, 128, {"ffn_size": 256}),
}

_ENCODERS = ("bert", "ernie")
SOLVERS: Mapping[str, tuple[Kind, ...]] = {
    **dict.fromkeys(_ENCODERS, ("classify", "tag", "rank")),
    **dict.fromkeys(("t5", "t5-v1.1"), ("generate",)),
}


def check_family(preset: str | None, kind: Kind) -> None:
    """Raises ConfigError for a family whose kernels cannot solve tasks of this kind."""
    if preset is not None and kind not in SOLVERS.get(preset, ()):
        able = [name for name, kinds in SOLVERS.items() if kind in kinds]
        raise ConfigError(f"a {preset} kernel solves no task of the kind {kind}", remedy=closest(preset, able))
