"""Biases as an adapter (Ben Zaken et al. 2022, "BitFit"): what is learnt is added to a module's bias."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.lora import is_linear
from nacre.kernel.adapters.site import Adapter


class BiasShift(Adapter):
    """`shift` (D,), 0 at first, is added to what a linear layer or a norm with a bias gives."""

    sums = True
    folds = True

    def __init__(self, config: AdapterConfig, host: nn.Module, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        self.shift = nn.Parameter(torch.zeros_like(cast(Tensor, host.bias)).detach())

    def change(self, host: nn.Module, x: Tensor, out: Tensor, weight: float) -> Tensor:
        """(..., D) to (..., D)."""
        return out + (self.shift * weight).to(out.dtype)

    def fold(self, values: dict[str, Tensor], weight: float) -> None:
        """As `Adapter.fold`."""
        values["bias"] = values["bias"] + self.shift.to(values["bias"].dtype) * weight


def has_bias(host: nn.Module) -> bool:
    """Whether this adapter can stand beside the module."""
    plain = is_linear(host) or isinstance(host, nn.LayerNorm)
    return plain and isinstance(getattr(host, "bias", None), nn.Parameter)
