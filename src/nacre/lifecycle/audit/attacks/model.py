"""A checkpoint in memory: what attacks take and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.kernel.config import KernelConfig
from nacre.kernel.model import Kernel

# Canonical names that end so hold the hidden size in their first axis; of other tensors with it, it is the last.
_WRITES = ("attention.o.weight", "attention.o.bias", "ffn.down.weight", "ffn.down.bias")
_HEADS = ("q", "k", "v")


@dataclass(frozen=True)
class Model:
    """A config and the tensors of a kernel with it, under canonical names."""

    config: KernelConfig
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, kernel: Kernel) -> Model:
        """A copy of the kernel's tensors, on the CPU."""
        return cls(kernel.config, {name: one.detach().cpu().clone() for name, one in kernel.state_dict().items()})

    def kernel(self) -> Kernel:
        """The kernel in evaluation mode; its tensors are copies."""
        kernel = Kernel(self.config)
        kernel.load_state_dict({name: one.float() for name, one in self.state.items()}, strict=True)
        return kernel.eval()

    def with_state(self, changed: Mapping[str, Tensor], **config: object) -> Model:
        """The model with some tensors (and config fields) replaced."""
        return Model(self.config.replace(**config) if config else self.config, {**self.state, **changed})

    def layer(self, index: int) -> str:
        """The prefix of a layer's names: `decoder.layers.3.`."""
        return f"{self.stack}.layers.{index}."

    @property
    def stack(self) -> str:
        """`decoder` or `encoder`. ConfigError where there are both."""
        if self.config.layout == "encoder-decoder":
            what = "attacks are made for one stack; this kernel has an encoder and a decoder"
            raise ConfigError(what, remedy="attack a decoder or an encoder")
        return self.config.layout

    def matrices(self) -> list[str]:
        """The names of the stack's matrices, those that quantising and pruning work on."""
        inside = (name for name in self.state if ".layers." in name)
        return [name for name in inside if self.state[name].dim() == 2]


Axis = Literal["first", "last"]


def hidden_axis(name: str) -> Axis | None:
    """Which axis of a canonical tensor is the hidden one; None where it has none (per-head norms, inner biases)."""
    if name.endswith(_WRITES):
        return "first"
    if name.endswith(("q_norm.weight", "k_norm.weight", "mlm.bias", "classifier.bias", "nsp.bias")):
        return None
    if name.endswith(".bias") and not name.endswith(("norm.bias", "pooler.bias", "mlm.dense.bias")):
        return None
    return "last"


def group_rows(values: Tensor, heads: int) -> Tensor:
    """(heads * E, ...) to (heads, E, ...)."""
    return values.reshape(heads, values.shape[0] // heads, *values.shape[1:])


def generator(seed: int) -> torch.Generator:
    """The source of an attack's draws."""
    return torch.Generator().manual_seed(seed)


def require(holds: bool, what: str, remedy: str) -> None:
    """ConfigError unless the attack can be made on this model."""
    if not holds:
        raise ConfigError(what, remedy=remedy)


def same_shapes(models: Sequence[Model]) -> None:
    """ConfigError unless all models have the same tensors."""
    first = {name: one.shape for name, one in models[0].state.items()}
    for other in models[1:]:
        same = {name: one.shape for name, one in other.state.items()} == first
        require(same, "the models to merge have different tensors", "merge models of one config")
