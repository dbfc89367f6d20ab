"""Adapters of a model: attached, switched, merged. A model is a kernel, or any module of `transformers`.

    attach(kernel, AdapterConfig("lora", rank=8))     # as it was: every method but prefix and prompt begins at nothing
    train(kernel, ...)
    with disabled(kernel): ...                        # the base, bit for bit
    fold(kernel)                                      # plain weights again, ready for `hf.save`

    attach(kernel, config, name="a"); attach(kernel, config, name="b")
    activate(kernel, "a")                             # or ("a", "b"), {"a": 0.3, "b": 0.7}, None

Only adapters, the head and what `train` names are trained. What is trained in full is not switched off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from nacre.errors import ConfigError, closest
from nacre.kernel.adapters.bias import BiasShift
from nacre.kernel.adapters.bottleneck import Bottleneck
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig
from nacre.kernel.adapters.leading import attach_prefix, attach_prompt
from nacre.kernel.adapters.lora import LowRank
from nacre.kernel.adapters.places import full_parameters, places
from nacre.kernel.adapters.site import MARK, Adapter, Site, put, refuse_quantised, remove, sites

DEFAULT = "default"
Active = str | Sequence[str] | Mapping[str, float] | None
_LAYERWISE: dict[str, type[LowRank] | type[Bottleneck] | type[BiasShift]] = {
    "lora": LowRank,
    "bottleneck": Bottleneck,
    "bias": BiasShift,
}


def attach(
    module: nn.Module,
    config: AdapterConfig | LoraConfig,
    generator: torch.Generator | None = None,
    *,
    name: str = DEFAULT,
) -> list[str]:
    """Adds an adapter, which alone acts and is trained from now on; the names of the adapted modules.

    Draws come from `generator`, or torch's global one, in the order of the modules. Raises ConfigError for a target
    that matches nothing, a name that is taken, and a method that this model cannot have.
    """
    config = AdapterConfig.of(config)
    _check_name(module, name)
    full_parameters(module, config.train)
    if config.method == "prefix":
        chosen = attach_prefix(module, config, name, generator)
    elif config.method == "prompt":
        chosen = attach_prompt(module, config, name, generator)
    else:
        chosen = places(module, config)
        hosts = [module.get_submodule(one) for one in chosen]
        made = [_LAYERWISE[config.method](config, host, generator) for host in hosts]
        for host, adapter in zip(hosts, made, strict=True):
            put(host, name, adapter)
    activate(module, name)
    return chosen


def attached(module: nn.Module) -> dict[str, AdapterConfig]:
    """The adapters of a model by name."""
    return {name: adapter.config for _, site in sites(module).values() for name, adapter in _of(site)}


def adapters(module: nn.Module, name: str | None = None) -> dict[str, Adapter]:
    """The parts of one adapter by the name of the module that each stands beside; of the only active one by default."""
    wanted = _the_active(module) if name is None else name
    return {where: site.adapter(wanted) for where, (_, site) in sites(module).items() if wanted in site}


def active(module: nn.Module) -> dict[str, float]:
    """The adapters that act, with their weights; those that are only disabled for a while included."""
    return {name: weight for _, site in sites(module).values() for name, weight in site.active.items()}


def activate(module: nn.Module, which: Active) -> None:
    """Lets the adapters `which` act, and be trained, and no others: a name, several, several with weights, or None.

    Weights are for what adds up (LoRA and biases). Several bottlenecks stand one behind the other, several prefixes or
    prompts in a row, in the order given.
    """
    wanted = _weights(which)
    known = attached(module)
    for name, weight in wanted.items():
        if name not in known:
            raise ConfigError(f"there is no adapter {name!r}", remedy=closest(name, known))
        if not -float("inf") < weight < float("inf"):
            raise ConfigError(f"the weight of the adapter {name!r} is {weight}", remedy="give a number")
    found = sites(module)
    for where, (_, site) in found.items():
        _check_together(site, wanted, where)
    for where, (host, site) in found.items():
        merged = site.merged
        site.unmerge(host)
        site.active = {name: weight for name, weight in wanted.items() if name in site}
        if merged:
            site.merge(host, where)
    train_adapters(module)


def train_adapters(module: nn.Module, names: Sequence[str] | None = None) -> None:
    """Leaves adapters (the active ones, or `names`), the head and what `train` names as all that is trained."""
    wanted = tuple(active(module)) if names is None else tuple(names)
    module.requires_grad_(False)
    configs = attached(module)
    for name in wanted:
        for adapter in adapters(module, name).values():
            adapter.requires_grad_(True)
    for parameter in full_parameters(module, [one for name in wanted for one in configs[name].train]).values():
        parameter.requires_grad_(True)


@contextmanager
def disabled(module: nn.Module) -> Iterator[None]:
    """Inside the block the model is its base, bit for bit (what is trained in full stays as it is)."""
    found = [(where, host, site, site.off, site.merged) for where, (host, site) in sites(module).items()]
    for _, host, site, _, _ in found:
        site.unmerge(host)
        site.off = True
    try:
        yield
    finally:
        for where, host, site, off, merged in found:
            site.off = off
            if merged:
                site.merge(host, where)


def merge(module: nn.Module) -> None:
    """Writes the active adapters into the weights: as fast as the base, the same outputs to rounding.

    Raises ConfigError, before anything is changed, for a method that has no place in the weights, and for quantised
    weights.
    """
    found = sites(module)
    for where, (host, site) in found.items():
        for name in site.active:
            adapter = site.adapter(name)
            if not adapter.folds:
                raise ConfigError(
                    f"the adapter {name!r} cannot be merged: weights have no place for the method "
                    f"{adapter.config.method}",
                    remedy="keep it beside the model, as nacre.kernel.adapters.peft.save writes it",
                )
            refuse_quantised(dict(host.named_parameters(recurse=False)), where)
    for where, (host, site) in found.items():
        site.merge(host, where)


def unmerge(module: nn.Module) -> None:
    """Undoes `merge` bit for bit."""
    for host, site in sites(module).values():
        site.unmerge(host)


def folds(module: nn.Module) -> bool:
    """Whether every active adapter can be merged and folded."""
    return all(site.adapter(name).folds for _, site in sites(module).values() for name in site.active)


def fold(module: nn.Module) -> None:
    """Merges the active adapters for good and removes all: the model is plain again, all of it trainable."""
    merge(module)
    detach(module)


def detach(module: nn.Module) -> None:
    """Removes all adapters; what is merged stays."""
    for host, site in sites(module).values():
        site.settle()
        remove(host)
    module.requires_grad_(True)


def is_adapter(parameter: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return MARK in f".{parameter}"


def _of(site: Site) -> list[tuple[str, Adapter]]:
    return [(name, site.adapter(name)) for name in site]


def _the_active(module: nn.Module) -> str:
    names = list(active(module))
    if len(names) > 1:
        raise ConfigError(f"several adapters are active: {', '.join(names)}", remedy="name one of them")
    return names[0] if names else ""


def _weights(which: Active) -> dict[str, float]:
    if which is None:
        return {}
    if isinstance(which, str):
        return {which: 1.0}
    return dict(which) if isinstance(which, Mapping) else dict.fromkeys(which, 1.0)


def _check_name(module: nn.Module, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(Site(), name):
        raise ConfigError(f"an adapter cannot be called {name!r}", remedy="letters, digits, _ and -, such as task-a")
    if name in attached(module):
        raise ConfigError(
            f"the model has an adapter {name!r} already", remedy="give another name=, or fold it first: fold(module)"
        )


def _check_together(site: Site, wanted: Mapping[str, float], where: str) -> None:
    here = [(name, site.adapter(name)) for name in wanted if name in site]
    for name, adapter in here:
        if wanted[name] != 1.0 and not adapter.sums:
            what = f"the adapter {name!r} cannot be weighted: {adapter.config.method} does not add up"
            raise ConfigError(what, remedy="give it the weight 1; LoRA (without dora) and biases can be weighted")
        if adapter.alone and len(here) > 1:
            what = f"the adapter {name!r} uses dora, and {where} has another active: row lengths do not add up"
            raise ConfigError(what, remedy="activate one of them at a time")
