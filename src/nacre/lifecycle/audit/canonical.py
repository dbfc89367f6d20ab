"""A foreign model under canonical names: every tensor has a role, whatever its file calls it.

Roles are keys (layer, role); layer is None outside the stack. A matrix is read as (out, in), as `torch.nn.Linear` holds
it; packed tensors (query, key and value in one; gate and up in one) are split into views of their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nacre.lifecycle.audit.tensors import Floats, TensorSource

# Outside the stack: embedding (V, D), positions (T, D), final_norm (D,), head (V, D).
# In a layer: norm1, norm2 (before attention, before the feed-forward; D), q (H*K, D), k and v (G*K, D), o (D, H*K),
# q_norm, k_norm (K), gate, up (F, D; `up` alone where the feed-forward is not gated), down (D, F), router (E, D),
# experts as gate.e, up.e, down.e with the expert's number; biases as ROLE.bias; what a family has beyond: its own word.
# Stacks beside the language model (or the encoder of an encoder-decoder) carry their name: `vision.q`, `encoder.q`.
Key = tuple[int | None, str]
Layout = Literal["decoder", "encoder", "encoder-decoder", "other"]
Basis = Literal["shapes", "names", "config"]


@dataclass(frozen=True)
class View:
    """A role's part of a stored tensor: after `transposed`, its rows start..stop, or the first `block` of each `step`.

    Blocks are how families interleave packed matrices per head (GPT-NeoX: q, k and v of head 0, then of head 1, ...).
    `index` picks one matrix of a stack (packed experts). `shape` is that of what `read` gives.
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    start: int = 0
    stop: int | None = None
    step: int = 1
    block: int = 1
    index: int | None = None

    def read(self, source: TensorSource) -> Floats:
        """The values (out, in) in float32."""
        whole = self.start == 0 and self.stop is None and self.step == self.block
        if self.index is not None:
            values = source.read(self.name, slice(self.index, self.index + 1))[0]
        elif whole or self.transposed:
            values = source.read(self.name)
        else:
            return self._pick(source.read(self.name, slice(self.start, self.stop)))
        values = values.T if self.transposed else values
        return self._pick(values[self.start : self.stop])

    def _pick(self, rows: Floats) -> Floats:
        if self.step != self.block:
            rows = rows[np.arange(len(rows)) % self.step < self.block]
        return np.ascontiguousarray(rows)


@dataclass(frozen=True)
class Sizes:
    """Symbolic sizes with their numbers; None where nothing tells."""

    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    ffn: int | None = None
    vocabulary: int | None = None
    experts: int | None = None


@dataclass(frozen=True)
class Canonical:
    """What stage 1 makes of one side. `design` is a hash without names and sizes, `shape` one with sizes.

    `graph` lists the operations of a layer and around the stack in order, as words with symbolic sizes, with what
    changes the function (norm, activation, positions). `names` maps stored names to canonical ones (`layers.3.q`),
    `unmapped` are names without a role. `family` is the nearest family by design, in the field's word. `views` is
    empty where only a config is known. `basis` is what roles and sizes stand on: shapes of tensors, their names (an
    index without shapes), or a config alone; `shape` is empty where sizes are unknown. `ambiguous` are roles that could
    not be told apart (`("gate", "up")`): their views are right up to an exchange, which is the same in every layer
    only where names are.
    """

    layout: Layout
    sizes: Sizes
    design: str
    shape: str
    graph: tuple[str, ...]
    family: str | None = None
    is_gated: bool = False
    views: Mapping[Key, View] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    basis: Basis = "shapes"
    ambiguous: tuple[tuple[str, ...], ...] = ()
