"""Where adapters sit: beside a module, by name, some of them acting.

A module that is adapted keeps its class and the canonical names of its parameters, and gains a child `adapters`:
`encoder.layers.0.attention.q.adapters.NAME.a`. What it computes is changed by a hook, so the module itself may be
anything: a linear layer of a kernel, one of `transformers`, one with quantised weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nacre.errors import ConfigError
from nacre.kernel.adapters.config import AdapterConfig

CHILD = "adapters"
MARK = f".{CHILD}."  # in the name of every parameter of an adapter


class Adapter(nn.Module):
    """What one adapter learns beside one module.

    `sums`: it may act times a weight. `alone`: no other may act beside the same module. `folds`: it can be written into
    the module's own parameters.
    """

    sums: bool = False
    alone: bool = False
    folds: ClassVar[bool] = False

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config

    def change(self, host: nn.Module, x: Tensor, out: Tensor, weight: float) -> Tensor:
        """What `host` is to give instead of `out` for the input `x`."""
        raise NotImplementedError

    def fold(self, values: dict[str, Tensor], weight: float) -> None:
        """Puts the adapter into `values`, the parameters of its host by name."""
        raise NotImplementedError


class Site(nn.ModuleDict):
    """The adapters beside one module. `active`: which of them act, each times its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.active: dict[str, float] = {}
        self.off = False
        self._plain: dict[str, Tensor] = {}
        self.hooks: list[RemovableHandle] = []

    @property
    def merged(self) -> bool:
        """Whether the module's own parameters hold the active adapters now."""
        return bool(self._plain)

    def acting(self) -> list[tuple[Adapter, float]]:
        """The adapters that change something now, in the order in which they were activated."""
        return [] if self.off or self._plain else [(self.adapter(name), w) for name, w in self.active.items()]

    def adapter(self, name: str) -> Adapter:
        found = self[name]
        assert isinstance(found, Adapter)
        return found

    def forward(self, host: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """The forward hook of a module."""
        for adapter, weight in self.acting():
            out = adapter.change(host, given[0], out, weight)
        return out

    @torch.no_grad()
    def merge(self, host: nn.Module, name: str) -> None:
        """Writes the active adapters into the parameters of `host`, called `name`, and keeps the former ones."""
        active = [(self.adapter(one), weight) for one, weight in self.active.items()]
        if self._plain or not active:
            return
        own = dict(host.named_parameters(recurse=False))
        refuse_quantised(own, name)
        values = {key: one.detach().to(_exact(one.dtype)) for key, one in own.items()}
        for adapter, weight in active:
            adapter.fold(values, weight)
        for key, parameter in own.items():
            self._plain[key] = parameter.detach().clone()
            parameter.copy_(values[key].to(parameter.dtype))

    @torch.no_grad()
    def unmerge(self, host: nn.Module) -> None:
        """Puts the former parameters back, bit for bit."""
        for key, value in self._plain.items():
            host.get_parameter(key).copy_(value)
        self._plain = {}

    def settle(self) -> None:
        """Forgets the former parameters: what was merged stays."""
        self._plain = {}


def sites(module: nn.Module) -> dict[str, tuple[nn.Module, Site]]:
    """Adapted modules by name, each with its site. The module itself has the name ''."""
    found = {}
    for name, one in module.named_modules():
        site = one._modules.get(CHILD)
        if isinstance(site, Site):
            found[name] = (one, site)
    return found


def put(host: nn.Module, name: str, adapter: Adapter, kind: type[Site] = Site, *, hooked: bool = True) -> None:
    """Sets `adapter` beside `host`, called `name` among others there. It does not act yet.

    Not `hooked`: the host asks its site itself.
    """
    site = host._modules.get(CHILD)
    if not isinstance(site, Site):
        site = kind()
        host.register_module(CHILD, site)
        if hooked:
            site.hooks = [host.register_forward_hook(site)]
    adapter.train(host.training)
    site[name] = adapter


def remove(host: nn.Module) -> None:
    """Takes all adapters of `host` away."""
    site = host._modules[CHILD]
    assert isinstance(site, Site)
    for hook in site.hooks:
        hook.remove()
    if site.hooks:
        del host._modules[CHILD]
    else:
        host.register_module(CHILD, None)


def refuse_quantised(values: Mapping[str, Tensor], name: str) -> None:
    """Raises ConfigError for parameters that are no plain numbers: what is added to them would be rounded away."""
    for key, value in values.items():
        if not value.is_floating_point() or value.dtype.itemsize < 2 or hasattr(value, "quant_state"):
            raise ConfigError(
                f"{name}.{key} is quantised ({value.dtype}): an adapter merged into it would be rounded to its steps",
                remedy="keep the adapter beside it, or merge into the unquantised model",
            )


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The format that sums are made in: never less than float32."""
    return torch.promote_types(dtype, torch.float32)
