"""Low-rank adapters on the matrices of a kernel (Hu et al. 2022, "LoRA").

An adapted matrix keeps its canonical names and gains two, `lora_a` (R, in) and `lora_b` (out, R). Only these and the
head are trained.

    names = attach(kernel, LoraConfig(rank=8))     # as it was: B begins at zero
    train(kernel, ...)
    fold(kernel)                                   # plain matrices again, ready for `hf.save`
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.errors import ConfigError, closest
from nacre.kernel.lora_config import LoraConfig, default_targets
from nacre.kernel.model import Kernel

# Parts of a kernel that a task's head consists of, by head: trained in full beside the adapters.
_HEADS = {"classify": ("classifier", "pooler"), "tag": ("classifier",), "pretraining": ("pooler", "nsp")}


class LoraLinear(nn.Linear):
    """A linear layer with an adapter. It takes over the weight and bias of `base`; A is drawn as PEFT does, B is 0."""

    def __init__(self, base: nn.Linear, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        with torch.device("meta"):
            super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        self.lora_a = nn.Parameter(base.weight.new_empty(config.rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, config.rank))
        nn.init.kaiming_uniform_(self.lora_a, a=sqrt(5), generator=generator)
        self.config, self.enabled = config, True
        self._plain: Tensor | None = None

    @property
    def merged(self) -> bool:
        """Whether the weight holds the adapter now."""
        return self._plain is not None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        out = F.linear(x, self.weight, self.bias)
        if self.merged or not self.enabled:
            return out
        if self.training and self.config.dropout:
            x = F.dropout(x, self.config.dropout)
        return out + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.config.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the adapter to the weight, in float32; the former weight is kept, so that `unmerge` is exact."""
        if not self.merged:
            delta = (self.lora_b.float() @ self.lora_a.float()) * self.config.scale
            plain = self.weight.detach().clone()
            self.weight.copy_((self.weight.float() + delta).to(self.weight.dtype))
            self._plain = plain

    @torch.no_grad()
    def unmerge(self) -> None:
        """Puts the former weight back, bit for bit."""
        if self._plain is not None:
            self.weight.copy_(self._plain)
            self._plain = None


def attach(kernel: Kernel, config: LoraConfig, generator: torch.Generator | None = None) -> list[str]:
    """Adapts the linear layers that `config.targets` names and freezes everything else but the head; their names.

    The kernel computes what it did before. Draws come from `generator`, or torch's global one, in the order of the
    modules. Raises ConfigError for a target that matches no linear layer, and where adapters are there already.
    """
    targets = config.targets or default_targets(kernel.config.family)
    linear = {name: module for name, module in kernel.named_modules() if _is_adaptable(name, module)}
    if adapters(kernel):
        raise ConfigError("the kernel has adapters already", remedy="fold them first: nacre.kernel.lora.fold(kernel)")
    for target in targets:
        if not any(_matches(name, target) for name in linear):
            raise ConfigError(
                f"lora: the target {target!r} matches no linear layer",
                remedy=closest(target, {name.rsplit(".", 1)[-1] for name in linear} | set(linear)),
            )
    chosen = [name for name in linear if any(_matches(name, target) for target in targets)]
    for name in chosen:
        replace(kernel, name, LoraLinear(linear[name], config, generator))
    train_adapters(kernel)
    return chosen


def adapters(kernel: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers by canonical name."""
    return {name: module for name, module in kernel.named_modules() if isinstance(module, LoraLinear)}


def head_parameters(kernel: Kernel) -> dict[str, nn.Parameter]:
    """What is trained in full beside adapters: a classifier with its pooler; no language-model head."""
    parts = _HEADS.get(kernel.config.head, ())
    return {name: one for name, one in kernel.named_parameters() if name.partition(".")[0] in parts}


def train_adapters(kernel: Kernel) -> None:
    """Leaves adapters and head as the only trainable parameters."""
    kernel.requires_grad_(False)
    for adapter in adapters(kernel).values():
        adapter.lora_a.requires_grad_(True)
        adapter.lora_b.requires_grad_(True)
    for parameter in head_parameters(kernel).values():
        parameter.requires_grad_(True)


@contextmanager
def disabled(kernel: nn.Module) -> Iterator[None]:
    """Inside the block the kernel is its base, bit for bit (the head stays as it is)."""
    found = [(adapter, adapter.enabled, adapter.merged) for adapter in adapters(kernel).values()]
    for adapter, _, _ in found:
        adapter.unmerge()
        adapter.enabled = False
    try:
        yield
    finally:
        for adapter, enabled, merged in found:
            adapter.enabled = enabled
            if merged:
                adapter.merge()


def merge(kernel: nn.Module) -> None:
    """Adds every adapter to its weight: as fast as the base, the same outputs to rounding."""
    for adapter in adapters(kernel).values():
        adapter.merge()


def unmerge(kernel: nn.Module) -> None:
    """Undoes `merge` bit for bit."""
    for adapter in adapters(kernel).values():
        adapter.unmerge()


def fold(kernel: Kernel) -> None:
    """Merges every adapter for good: the kernel has plain linear layers again, all of them trainable."""
    for name, adapter in adapters(kernel).items():
        adapter.merge()
        with torch.device("meta"):
            plain = nn.Linear(adapter.in_features, adapter.out_features, bias=adapter.bias is not None)
        plain.weight, plain.bias = adapter.weight, adapter.bias
        replace(kernel, name, plain)
    kernel.requires_grad_(True)


def replace(kernel: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` where the module called `name` is, in the mode that this one is in."""
    parent, _, last = name.rpartition(".")
    module.train(kernel.get_submodule(name).training)
    setattr(kernel.get_submodule(parent), last, module)


def _is_adaptable(name: str, module: nn.Module) -> bool:
    """Every linear layer inside the stacks; heads are trained in full."""
    return isinstance(module, nn.Linear) and name.partition(".")[0] in ("encoder", "decoder")


def _matches(name: str, target: str) -> bool:
    return fnmatchcase(name, target) or fnmatchcase(name, f"*.{target}")
