"""Which stacks a checkpoint holds, and which of them is the language model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from nacre.lifecycle.audit.kernel.names import Parsed, by_stack
from nacre.lifecycle.audit.kernel.roles import Stack, has_core, place_layers, place_outside, side_of
from nacre.lifecycle.audit.kernel.sizes import Shape


@dataclass
class Stacks:
    """The language model's stack (of an encoder-decoder: the decoder's), what stands beside it, and what is left."""

    main: Stack
    encoder: Stack | None = None
    beside: list[Stack] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)

    def all(self) -> list[Stack]:
        """Every stack, the language model's first."""
        return [self.main, *([self.encoder] if self.encoder else []), *self.beside]


def find(parsed: Sequence[Parsed], shapes: Mapping[str, Shape]) -> Stacks | None:
    """Stacks by names; None where no stack's names say what it does."""
    grouped = by_stack(parsed)
    placed = {prefix: place_layers(prefix, members) for prefix, members in grouped.items()}
    real = {prefix: one for prefix, one in placed.items() if _does_something(one)}
    if not real:
        return None
    stacks = _labelled(list(real.values()), shapes)
    unmapped = [name for one in stacks.all() for name in one.unmapped if one.layers]
    in_layers = {one.name for stack in stacks.all() for one in stack.placed} | set(unmapped)
    edge = {name for one in stacks.all() for name in one.unmapped if _is_edge(name, one, parsed)}
    outside = [one for one in parsed if one.name not in in_layers or one.name in edge]
    left = place_outside(outside, stacks.all(), stacks.main)
    stacks.unmapped = sorted({*left, *(set(unmapped) - edge)})
    return stacks


def _is_edge(name: str, stack: Stack, parsed: Sequence[Parsed]) -> bool:
    """Whether a tensor lies in a numbered module that is no layer (the first and last of a sequential model)."""
    layer = next((one.layer for one in parsed if one.name == name), None)
    return layer is not None and layer not in stack.layers


def _does_something(stack: Stack) -> bool:
    return any(has_core(one.role for one in stack.of_layer(layer)) for layer in stack.layers)


def _labelled(stacks: list[Stack], shapes: Mapping[str, Shape]) -> Stacks:
    language = [one for one in stacks if side_of(one.prefix) is None] or stacks
    crossed = [one for one in language if any(role.startswith("cross.") for role in one.roles())]
    main = max(crossed or language, key=lambda one: (_weight(one, shapes), one.prefix))
    rest = [one for one in stacks if one is not main]
    others = [one for one in rest if one in language]
    encoder = max(others, key=lambda one: (_weight(one, shapes), one.prefix)) if crossed and others else None
    if encoder is not None:
        encoder.label = "encoder"
    beside = sorted((one for one in rest if one is not encoder), key=lambda one: one.prefix)
    taken: set[str] = set()
    for one in beside:
        word = side_of(one.prefix) or "beside"
        one.label = next(label for label in (word, *(f"{word}{n}" for n in range(2, 99))) if label not in taken)
        taken.add(one.label)
    return Stacks(main, encoder, beside)


def _weight(stack: Stack, shapes: Mapping[str, Shape]) -> int:
    """Parameters where shapes are known, tensors otherwise."""
    known = sum(prod(shapes[one.name]) for one in stack.placed if shapes.get(one.name))
    return known or len(stack.placed)
