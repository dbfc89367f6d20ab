"""What an effort means in numbers, and which family of kernel solves which kind of task. Light.

Operations rather than seconds, so that a run is the same on a busy machine and on an idle one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nacre.errors import ConfigError, closest
from nacre.recipe.scaling import SHAPES, Shape

if TYPE_CHECKING:
    from nacre.metrics.quality import Kind


@dataclass(frozen=True)
class Effort:
    """`flops` of one tuning; `passes`: the most over the labelled rows.

    `tries_warm_up`: the kernel is tuned with and without a warm-up, and validation decides: that comes on top.
    """

    flops: float
    passes: int
    tries_warm_up: bool = False


# Two cores without bfloat16 train kernels of this size at some 20 to 40 GFLOP/s: about a minute, six, forty.
EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(1.2e12, 30),
    "normal": Effort(1e13, 45),
    "thorough": Effort(6e13, 60, tries_warm_up=True),
}
FEW_ROWS = 4_000  # fewer labelled examples are trained in batches of half the size: more steps for the same budget


@dataclass(frozen=True)
class Recipe:
    """How a kind of task is trained; figures found on validation rows.

    All hidden matrices are trained by Muon: at the same budget it was several points ahead of AdamW on validation. The
    two were compared for classification only.
    """

    preset: str
    least: Shape  # smaller kernels lose more than they save
    batch_size: int
    lr: float
    longest: int  # tokens of a text, at most
    choices: Mapping[str, Any] = field(default_factory=dict)  # of KernelConfig, besides the sizes
    optimizer: str = "muon"
    share: float = 1.0  # of an effort's operations: kernels with little to multiply spend their time elsewhere

    def batch_for(self, examples: int) -> int:
        """Examples of a step, where there are so many labelled ones."""
        return self.batch_size if examples >= FEW_ROWS else max(1, self.batch_size // 2)


RECIPES: Mapping[Kind, Recipe] = {
    "classify": Recipe("bert", Shape(128, 2, 4), 64, 2e-3, 256),
    "tag": Recipe("bert", Shape(128, 2, 4), 32, 1e-3, 256),
    "generate": Recipe("t5-v1.1", Shape(128, 2, 4), 64, 2e-3, 192),
    # Search from scratch lives in the embeddings: one thin layer over them, and many steps rather than depth.
    "rank": Recipe("bert", Shape(128, 1, 4), 128, 5e-3, 96, {"ffn_size": 128}, share=0.4),
}

LARGEST = Shape(768, 12, 12)


def allowed(recipe: Recipe) -> list[Shape]:
    """The shapes that a solution may take, smallest first."""
    larger = (one for one in SHAPES if one.layers > recipe.least.layers and one.hidden_size >= recipe.least.hidden_size)
    return [recipe.least, *(one for one in larger if one.layers <= LARGEST.layers)]


WARM_UP_SHARE = 0.5  # steps of a warm-up, as a share of those of tuning


def tuned_flops(effort: Effort, kind: Kind) -> float:
    """What all tunings and warm-ups of an effort take, roughly."""
    tries = effort.tries_warm_up and kind != "rank"
    return effort.flops * RECIPES[kind].share * (2 + WARM_UP_SHARE if tries else 1)


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
