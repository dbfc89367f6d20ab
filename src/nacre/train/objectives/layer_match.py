"""Hidden states of a student drawn towards those of a teacher, layer by layer.

B texts, T tokens, D width of the student, E of the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.errors import ConfigError
from nacre.kernel.config import KernelConfig
from nacre.kernel.model import Kernel
from nacre.kernel.stack import Stack
from nacre.train.loss import capped
from nacre.train.objectives.config_align import LayerMatch

PROJECTIONS = "projections"
States = dict[int, Tensor]


class Projections(nn.Module):
    """A matrix (E, D) per pair of layers, a part of the student while it is trained: the optimiser and the checkpoints
    of the run know it by name, and it is resumed as weights are. What is saved of the student does not hold it."""

    def __init__(self, layers: Mapping[int, int], widths: tuple[int, int], generator: torch.Generator) -> None:
        super().__init__()
        for student in layers:
            drawn = torch.randn(widths[1], widths[0], generator=generator) * widths[0] ** -0.5
            self.register_parameter(f"layer_{student}", nn.Parameter(drawn))

    def forward(self, layer: int, states: Tensor) -> Tensor:
        """(B, T, D) to (B, T, E)."""
        return F.linear(states, self.get_parameter(f"layer_{layer}"))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        del destination, prefix, keep_vars


def attach(kernel: Kernel, teacher: KernelConfig, config: LayerMatch, generator: torch.Generator) -> bool:
    """Gives the student the projections it needs; whether it needs any. To be called before training."""
    layers, widths = pairs(config, kernel.config, teacher), (kernel.config.hidden_size, teacher.hidden_size)
    if widths[0] == widths[1]:
        return False
    weight = next(kernel.parameters())
    kernel.add_module(PROJECTIONS, Projections(layers, widths, generator).to(weight.device, weight.dtype))
    return True


def detach(kernel: Kernel) -> None:
    """Takes the projections away again."""
    if hasattr(kernel, PROJECTIONS):
        delattr(kernel, PROJECTIONS)


def pairs(config: LayerMatch, student: KernelConfig, teacher: KernelConfig) -> dict[int, int]:
    """The student's layers that are matched -> the teacher's. ConfigError for one that is not there."""
    mine, theirs = depth(student), depth(teacher)
    if config.layers == "last":
        return {mine - 1: theirs - 1}
    if config.layers == "even":
        return {layer: (layer + 1) * theirs // mine - 1 for layer in range(mine)} if mine <= theirs else _too_deep()
    for layer, other in config.layers.items():
        for who, value, limit in (("student", layer, mine), ("teacher", other, theirs)):
            if not 0 <= value < limit:
                raise ConfigError(
                    f"hidden.layers names layer {value} of the {who}, which has {limit}",
                    remedy=f"layers count from 0: give 0 to {limit - 1}",
                )
    return dict(config.layers)


def _too_deep() -> dict[int, int]:
    raise ConfigError(
        "the student has more layers than the teacher: none can be spread over the other",
        remedy="hidden.layers: last, or pairs such as {'0': 1, '1': 3}",
    )


def depth(config: KernelConfig) -> int:
    """Layers of the stack that predicts."""
    return list(config.stack_layers.values())[-1]


@contextmanager
def seen(kernel: Kernel, layers: Mapping[int, Any] | set[int]) -> Iterator[States]:
    """Inside the block the states (B, T, D) after these layers are kept, as they are computed: those of the text,
    not of a learnt prompt before it."""
    sites = None if kernel.config.layout == "encoder-decoder" else kernel.embed.adapters
    prompt = 0 if sites is None else sites.length
    stack = kernel.decoder if kernel.decoder is not None else kernel.encoder
    assert isinstance(stack, Stack)
    found: States = {}

    def keeper(number: int) -> Any:
        def keep(module: nn.Module, given: Any, states: Tensor) -> None:
            # Under activation checkpointing the layer runs again in the backward pass, when nobody looks any more.
            found.setdefault(number, states[:, prompt:])

        return keep

    handles = [stack.layers[number].register_forward_hook(keeper(number)) for number in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def apart(kernel: Kernel, mine: States, theirs: States, layers: Mapping[int, int], kind: str) -> Tensor:
    """(B, T) how far the student's states are from the teacher's, the mean over the pairs of layers."""
    projections = getattr(kernel, PROJECTIONS, None)
    terms = []
    for layer, other in layers.items():
        states = mine[layer] if projections is None else projections(layer, mine[layer])
        wanted = theirs[other]
        if kind == "cosine":
            terms.append(1 - F.cosine_similarity(capped(states, None), capped(wanted, None), dim=-1, eps=1e-8))
        else:
            terms.append((states - wanted).square().mean(-1))
    return torch.stack(terms).mean(0)
