"""What a low-rank adapter is told. Free of torch, so that plans can check it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from nacre.errors import ConfigError


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2022, section 4.1): a matrix W becomes W + scale * B A, and W is not trained.

    `rank` is that of A (rank, in) and B (out, rank); the scale is `alpha` / rank, or `alpha` / sqrt(rank) with `rslora`
    (Kalajdzievski 2023). `dropout` acts on what A reads, in training only. `targets` are ends of, or glob patterns
    over, canonical module names (`q`, `attention.*`, `decoder.layers.3.ffn.up`); none: the matrices that PEFT takes
    for the family.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    rslora: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora: rank is {self.rank}", remedy="give 1 or more; 8 and 16 are customary")
        if not 0 < self.alpha < inf:
            raise ConfigError(f"lora: alpha is {self.alpha}", remedy="give a number above 0; twice the rank, say")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora: dropout is {self.dropout}", remedy="give a share from 0 (off) up to 1")

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


def default_targets(family: str) -> tuple[str, ...]:
    """Ends of the canonical names of the matrices that PEFT adapts in a family when it is told nothing."""
    return ("q", "k", "v") if family == "gpt2" else ("q", "v")
