"""Normalisation: LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019), both reduced in float32."""

from __future__ import annotations

from torch import nn

from nacre.kernel.config import KernelConfig


def make_norm(config: KernelConfig, width: int) -> nn.Module:
    """The norm that `config` chose, over the last `width` channels."""
    if config.norm == "rms":
        return nn.RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps)
