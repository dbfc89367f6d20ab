"""Low-rank adapters beside linear layers (Hu et al. 2022, "LoRA"; Liu et al. 2024, "DoRA").

R rank; a weight is (out, in), or (in, out) where the layer is a `Conv1D` of `transformers`.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.kernel.adapters.config import AdapterConfig, LoraConfig
from nacre.kernel.adapters.site import Adapter, refuse_quantised


class LowRank(Adapter):
    """`a` (R, in) and `b` (out, R): the layer gives what it gave, plus scale * B A x. A is drawn as PEFT does, B is 0.

    With `dora` a third parameter, `magnitude` (out,), is the length of every row of the whole matrix.
    """

    sums = True
    folds = True

    def __init__(self, config: AdapterConfig, host: nn.Module, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        self.lora: LoraConfig = config.lora()
        self.transposed = is_transposed(host)
        n_in, n_out = widths(host)
        weight = cast(Tensor, host.weight)
        like = like_weight(host)
        self.a = nn.Parameter(like.new_empty(self.lora.rank, n_in))
        self.b = nn.Parameter(like.new_zeros(n_out, self.lora.rank))
        nn.init.kaiming_uniform_(self.a, a=sqrt(5), generator=generator)
        if config.dora:
            refuse_quantised({"weight": weight}, "the layer under DoRA")
            self.sums, self.alone = False, True
            self.magnitude = nn.Parameter(torch.linalg.vector_norm(self._rows(weight.detach()), dim=1))

    def change(self, host: nn.Module, x: Tensor, out: Tensor, weight: float) -> Tensor:
        """(..., in) and (..., out) to (..., out)."""
        lora, dropped = self.lora, self.training and self.lora.dropout > 0
        x = x.to(self.a.dtype)
        base = out
        if dropped:
            x = F.dropout(x, lora.dropout)
            # The direction of DoRA is that of the whole matrix, so dropout acts on what all of it reads.
            base = self._base(host, x) if lora.dora else out
        delta = F.linear(F.linear(x, self.a), self.b) * (lora.scale * weight)
        if not lora.dora:
            return out + delta.to(out.dtype)
        bias: Any = host.bias
        base = base if bias is None or dropped else base - bias
        # The norm is a constant to the gradient (section 4.3).
        norm = torch.linalg.vector_norm(
            self._rows(cast(Tensor, host.weight)).detach() + lora.scale * (self.b @ self.a).detach(), dim=1
        )
        factor = self.magnitude / norm
        directed: Tensor = (factor - 1) * base + factor * delta
        return out + directed.to(out.dtype)

    def fold(self, values: dict[str, Tensor], weight: float) -> None:
        """As `Adapter.fold`."""
        kept = self._rows(values["weight"])
        delta = (self.b.to(kept.dtype) @ self.a.to(kept.dtype)) * (self.lora.scale * weight)
        whole = kept + delta
        if self.lora.dora:
            whole = whole * (self.magnitude.to(kept.dtype) / torch.linalg.vector_norm(whole, dim=1))[:, None]
        values["weight"] = self._rows(whole)

    def _rows(self, weight: Tensor) -> Tensor:
        """The weight as (out, in), or back."""
        return weight.T if self.transposed else weight

    def _base(self, host: nn.Module, x: Tensor) -> Tensor:
        weight = self._rows(cast(Tensor, host.weight))
        return F.linear(x.to(weight.dtype), weight)


def is_transposed(host: nn.Module) -> bool:
    """Whether the layer holds its weight as (in, out): the `Conv1D` of `transformers`."""
    return type(host).__name__ == "Conv1D"


def is_linear(host: nn.Module) -> bool:
    """Whether low-rank adapters can stand beside this module."""
    return isinstance(host, nn.Linear) or is_transposed(host)


def widths(host: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer."""
    if isinstance(host, nn.Linear):
        return host.in_features, host.out_features
    shape = cast(Tensor, host.weight).shape
    return int(shape[0]), int(shape[1])


def like_weight(host: nn.Module) -> Tensor:
    """A tensor of the device and format that adapters of this layer take: the weight's, float32 if it is quantised."""
    weight = cast(Tensor, host.weight)
    plain = weight.is_floating_point() and weight.dtype.itemsize > 1
    return weight if plain else torch.empty(0, device=weight.device)
