"""Tensors of one shape given to the roles of that shape: by names that still say something, by values, else openly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nacre.lifecycle.audit.kernel.names import Parsed
from nacre.lifecycle.audit.kernel.roles import Placed, layer_role, outside_role
from nacre.lifecycle.audit.kernel.sizes import Shape
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import TensorSource

_Roles = tuple[tuple[str, Shape], ...]


@dataclass
class Assigner:
    """Fills roles with tensors of their shape. What could be exchanged is kept in `open_roles`."""

    shapes: Mapping[str, Shape]
    source: TensorSource | None
    trust_names: bool
    open_roles: dict[tuple[str, ...], int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def assign(self, layer: int | None, members: Sequence[Parsed], roles: _Roles) -> list[Placed]:
        """A tensor for every role that has one of its shape."""
        by_shape: dict[Shape, list[str]] = defaultdict(list)
        for role, shape in roles:
            by_shape[shape].append(role)
        placed = []
        for shape, wanted in by_shape.items():
            same = sorted((one for one in members if self.shapes[one.name] == shape), key=lambda one: one.template)
            for role, one in self._match(wanted, same).items():
                bare, is_bias = role.removesuffix(".bias"), role.endswith(".bias")
                placed.append(Placed(one.name, bare, "bias" if is_bias else "weight", layer))
        return placed

    def ambiguous(self) -> tuple[tuple[str, ...], ...]:
        """Groups of roles that nothing told apart, each once."""
        return tuple(sorted(self.open_roles))

    def _match(self, wanted: Sequence[str], same: Sequence[Parsed]) -> dict[str, Parsed]:
        matched: dict[str, Parsed] = {}
        left = list(same)
        if self.trust_names:
            for one in same:
                hint = layer_role(one.path, same) or outside_role(one.path)
                hint = f"{hint}.bias" if hint and one.part == "bias" else hint
                if hint is not None and hint in wanted and hint not in matched:
                    matched[hint] = one
                    left.remove(one)
        roles = [role for role in wanted if role not in matched]
        for some_roles, some in self._gains_and_biases(roles, left):
            if len(some_roles) > 1 or len(some) > len(some_roles):
                if len(some) > len(some_roles):
                    self.notes.append(say("more tensors than roles of the shape of {roles}", roles=list(some_roles)))
                group = tuple(sorted(some_roles))
                if len(group) > 1:
                    self.open_roles[group] = self.open_roles.get(group, 0) + 1
            matched |= dict(zip(some_roles, some, strict=False))
        return matched

    def _gains_and_biases(self, roles: Sequence[str], left: Sequence[Parsed]) -> list[tuple[list[str], list[Parsed]]]:
        """Vectors split into gains and biases: by their ending, else by their mean (gains stand around one)."""
        biases = [role for role in roles if role.endswith(".bias")]
        gains = [role for role in roles if not role.endswith(".bias")]
        if not biases or not gains:
            return [(list(roles), list(left))] if roles else []
        ended = [one for one in left if one.part == "bias"]
        if len(ended) == len(biases):
            return [(biases, ended), (gains, [one for one in left if one not in ended])]
        if self.source is None:
            return [(list(roles), list(left))]
        read = self.source.read
        ranked = sorted(left, key=lambda one: -abs(float(np.mean(read(one.name)))))
        first, rest = ranked[: len(gains)], ranked[len(gains) :]
        return [
            (gains, sorted(first, key=lambda one: one.template)),
            (biases, sorted(rest, key=lambda one: one.template)),
        ]
