"""Views and names of a canonical form under exchanged roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel.names import templated


def relabelled(
    canonical: Canonical,
    layer: int | None,
    roles: Mapping[str, str],
    ambiguous: tuple[tuple[str, ...], ...] | None = None,
) -> Canonical:
    """`canonical` where what one layer calls `role` is called `roles[role]`; `roles` exchanges roles of one shape."""
    views = dict(canonical.views)
    at = "" if layer is None else f"layers.{layer}."
    for old, new in roles.items():
        views[layer, new] = canonical.views[layer, old]
    moved = {at + old: at + new for old, new in roles.items() if old != new}
    names = {name: moved.get(role, role) for name, role in canonical.names.items()} if moved else canonical.names
    left = canonical.ambiguous if ambiguous is None else tuple(sorted(set(ambiguous)))
    return replace(canonical, views=views, names=names, ambiguous=left)


def is_alike(canonical: Canonical, group: Sequence[str], layers: Sequence[int | None]) -> bool:
    """Whether all layers store each role of the group under one name but for its number."""
    return all(len({templated(canonical.views[layer, role].name) for layer in layers}) == 1 for role in group)


def spread_layers(layers: Sequence[int | None], count: int) -> list[int | None]:
    """At most `count` layers, evenly over their order, first and last among them."""
    if len(layers) <= count:
        return list(layers)
    return [layers[round(at * (len(layers) - 1) / (count - 1))] for at in range(count)]


def paired_biases(canonical: Canonical) -> Canonical:
    """Biases whose role was open follow the matrix or gain of their name (`x.bias` belongs to `x.weight`)."""
    open_ones = {role for group in canonical.ambiguous for role in group if role.endswith(".bias")}
    if not open_ones:
        return canonical
    role_of = {_stem(view.name): key for key, view in canonical.views.items() if not key[1].endswith(".bias")}
    settled = True
    layers = sorted({layer for layer, _ in canonical.views if layer is not None})
    for layer in [None, *layers]:
        here = [role for role in sorted(open_ones) if (layer, role) in canonical.views]
        wanted = {role: role_of.get(_stem(canonical.views[layer, role].name), (layer, ""))[1] + ".bias"
                  for role in here}  # fmt: skip
        if sorted(wanted.values()) == here:
            canonical = relabelled(canonical, layer, wanted)
        else:
            settled = False
    if not settled:
        return canonical
    unsettled = {role for group in canonical.ambiguous for role in group if not role.endswith(".bias")}
    groups = []
    for group in canonical.ambiguous:
        is_bias = all(role.endswith(".bias") for role in group)
        kept = tuple(role for role in group if not is_bias or role.removesuffix(".bias") in unsettled)
        groups.append(kept)
    return relabelled(canonical, None, {}, tuple(one for one in groups if len(one) > 1))


def _stem(name: str) -> str:
    return name.removesuffix(".bias").removesuffix(".weight")
