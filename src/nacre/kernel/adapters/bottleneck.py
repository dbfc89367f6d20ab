"""Bottleneck adapters: a small network behind a sublayer (Houlsby et al. 2019, section 2.1, figure 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.lora import like_weight, widths
from nacre.kernel.adapters.site import Adapter


class Bottleneck(Adapter):
    """h becomes h + W_up relu(W_down h + b_down) + b_up, where h is what the sublayer adds to the residual stream.

    `width` channels inside. W_up and both biases begin at 0, so that the model computes what it did. Several that act
    at once stand one behind the other.
    """

    def __init__(self, config: AdapterConfig, host: nn.Module, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        size, like = widths(host)[1], like_weight(host)
        self.down = nn.Parameter(like.new_empty(config.width, size))
        self.down_bias = nn.Parameter(like.new_zeros(config.width))
        self.up = nn.Parameter(like.new_zeros(size, config.width))
        self.up_bias = nn.Parameter(like.new_zeros(size))
        nn.init.normal_(self.down, std=0.02, generator=generator)

    def change(self, host: nn.Module, x: Tensor, out: Tensor, weight: float) -> Tensor:
        """(..., D) to (..., D)."""
        inner = F.relu(F.linear(out.to(self.down.dtype), self.down, self.down_bias))
        if self.training and self.config.dropout:
            inner = F.dropout(inner, self.config.dropout)
        return out + F.linear(inner, self.up, self.up_bias).to(out.dtype)
