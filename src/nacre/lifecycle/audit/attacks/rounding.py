"""Fewer bits: rounding to a grid per group, to eight-bit floats, and the grid's own arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.lifecycle.audit.attacks.model import Model


def round_groups(model: Model, bits: int, group: int = 32, symmetric: bool = False) -> Model:
    """Every matrix of the stack rounded to 2**bits levels per `group` of neighbours in a row, dequantised again."""
    return model.with_state({name: _grid(model.state[name], bits, group, symmetric) for name in model.matrices()})


def _grid(values: Tensor, bits: int, group: int, symmetric: bool) -> Tensor:
    columns = values.shape[1]
    wide = torch.nn.functional.pad(values.float(), (0, -columns % group))
    blocks = wide.reshape(values.shape[0], -1, group)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        step = (blocks.abs().amax(-1, keepdim=True) / top).clamp(min=1e-12)
        rounded = (blocks / step).round().clamp(-top, top) * step
    else:
        low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
        step = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
        rounded = ((blocks - low) / step).round() * step + low
    out: Tensor = rounded.reshape(values.shape[0], -1)[:, :columns].to(values.dtype).contiguous()
    return out


def round_float8(model: Model) -> Model:
    """Every matrix of the stack scaled into the range of E4M3 and rounded to it, dequantised again."""
    changed = {}
    for name in model.matrices():
        values = model.state[name].float()
        scale = values.abs().max().clamp(min=1e-12) / 448.0
        changed[name] = ((values / scale).to(torch.float8_e4m3fn).float() * scale).to(model.state[name].dtype)
    return model.with_state(changed)
