"""Which parameter is trained, by which optimiser, at which rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nacre.errors import ConfigError, closest
from nacre.train.config import TrainConfig
from nacre.train.muon import Muon


class Layered(Protocol):
    """What layer-wise rates and Muon need to know of a kernel."""

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) from the input to the output."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of nn.Module."""


def freeze(kernel: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Takes the parameters whose names match a glob pattern out of training; their names.

    A pattern also matches everything below a module of that name. ConfigError for a pattern that matches nothing, and
    when nothing is left to train.
    """
    parameters = dict(kernel.named_parameters())
    frozen: list[str] = []
    for pattern in patterns:
        matched = [name for name in parameters if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not matched:
            raise ConfigError(
                f"the freeze pattern {pattern!r} matches no parameter", remedy=closest(pattern, _prefixes(parameters))
            )
        for name in matched:
            parameters[name].requires_grad_(False)
        frozen += matched
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError("every parameter is frozen: there is nothing to train", remedy="freeze fewer patterns")
    return sorted(set(frozen))


def _prefixes(names: Mapping[str, object]) -> set[str]:
    """Every module path and every full name: what a pattern could have meant."""
    return {name.rsplit(".", depth)[0] for name in names for depth in range(name.count(".") + 1)}


@dataclass(frozen=True)
class Place:
    """How one parameter is trained."""

    optimizer: str
    decays: bool
    rate: float  # factor of the rate of its optimiser


def place(kernel: Layered, names: Sequence[str], config: TrainConfig) -> dict[str, Place]:
    """Where each of the trainable parameters `names` goes; each exactly once.

    Muon takes the matrices inside numbered layers; embeddings, heads, norms and biases go to AdamW. Matrices decay;
    norms, biases and other vectors never do. Under `layer_decay` the top (heads, last norm) has the full rate, each
    numbered layer below it that factor less, and the embeddings the lowest.
    """
    found = depths(kernel)
    top = max(found.values(), default=0)
    places: dict[str, Place] = {}
    parameters = dict(kernel.named_parameters())
    for name in names:
        owner = next((prefix for prefix in parents(name) if prefix in found), None)
        hidden = owner is not None and _is_numbered(owner) and parameters[name].ndim == 2
        optimizer = "adamw" if config.optimizer == "muon" and not hidden else config.optimizer
        rate = config.layer_decay ** (top - found[owner]) if owner is not None else 1.0
        places[name] = Place(optimizer, decays=parameters[name].ndim >= 2, rate=rate)
    return places


def parents(name: str) -> Iterator[str]:
    """The modules that a parameter is inside of, from the nearest."""
    while name := name.rpartition(".")[0]:
        yield name


def _is_numbered(layer: str) -> bool:
    return layer.rpartition(".")[2].isdigit()


def depths(kernel: Layered) -> dict[str, int]:
    """Name of each layer -> its depth: 0 below the first numbered layer, then one more with each of them."""
    found: dict[str, int] = {}
    n_numbered = 0
    for name, _ in kernel.layers():
        n_numbered += _is_numbered(name)
        found[name] = n_numbered if _is_numbered(name) or not n_numbered else n_numbered + 1
    return found


class Optimizers:
    """One or two optimisers that step together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)

    def set_rate(self, factor: float) -> None:
        """Every rate becomes `factor` times what the config says for its parameters."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["full_lr"] * factor

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def build(kernel: Layered, weights: Mapping[str, Tensor], config: TrainConfig) -> Optimizers:
    """The optimisers of `config` over `weights`: the trainable parameters of `kernel` by name, or their masters."""
    grouped: defaultdict[Place, list[Tensor]] = defaultdict(list)
    for name, where in place(kernel, list(weights), config).items():
        grouped[where].append(weights[name])
    by_optimizer: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for where, tensors in grouped.items():
        rate = (config.muon_lr if where.optimizer == "muon" else config.lr) * where.rate
        decay = config.weight_decay if where.decays else 0.0
        by_optimizer[where.optimizer].append({"params": tensors, "lr": rate, "full_lr": rate, "weight_decay": decay})
    return Optimizers([_optimizer(name, groups, config) for name, groups in by_optimizer.items()])


def _optimizer(name: str, groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    if name == "muon":
        return Muon(groups, lr=config.muon_lr, momentum=config.momentum)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
