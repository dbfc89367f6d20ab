"""The feed-forward of a layer: one activation between two projections, gated (Shazeer 2020, GLU Variants) or not."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from nacre.kernel.config import Activation, KernelConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """(B, T, D) to (B, T, D) through F channels."""

    def __init__(self, config: KernelConfig) -> None:
        super().__init__()
        size, inner, bias = config.hidden_size, config.ffn_width, config.ffn_bias
        self.gate = nn.Linear(size, inner, bias=bias) if config.gated else None
        self.up = nn.Linear(size, inner, bias=bias)
        self.down = nn.Linear(inner, size, bias=bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.ffn_dropout

    def forward(self, x: Tensor) -> Tensor:
        inner = self.activation(self.up(x)) if self.gate is None else self.activation(self.gate(x)) * self.up(x)
        if self.training and self.dropout:
            inner = F.dropout(inner, self.dropout)
        out: Tensor = self.down(inner)
        return out
