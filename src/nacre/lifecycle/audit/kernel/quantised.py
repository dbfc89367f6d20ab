"""Linear layers stored as packed integers (GPTQ, AWQ): one module, one role, no matrix to be read as it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nacre.lifecycle.audit.kernel.sizes import Shape
from nacre.lifecycle.audit.said import say


@dataclass
class Bits:
    """Tensors with packed integers as weights of unknown shape (`packed`), and without the quantiser's own biases."""

    shapes: dict[str, Shape]
    packed: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    dropped: tuple[str, ...] = ()


def without_bits(shapes: Mapping[str, Shape]) -> Bits:
    """Blanks the shapes of packed integers. Where every quantised module has a bias, the quantiser wrote them: no bias
    of those modules is taken as part of the design, and that is said."""
    modules = {name.removesuffix(".qweight") for name in shapes if name.endswith(".qweight")}
    if not modules:
        return Bits(dict(shapes))
    biases = {f"{module}.bias" for module in modules} & set(shapes)
    kept = {name: () if name.endswith(".qweight") else shape for name, shape in shapes.items()}
    notes: list[str] = [say("{n} matrices are packed integers: they have roles and are not read", n=len(modules))]
    if len(biases) == len(modules):
        kept = {name: shape for name, shape in kept.items() if name not in biases}
        notes.append("every packed matrix has a bias, which quantisers add: these biases are no part of the design")
    dropped = tuple(sorted(set(shapes) - set(kept)))
    return Bits(kept, frozenset(name for name in kept if name.endswith(".qweight")), notes, dropped)
