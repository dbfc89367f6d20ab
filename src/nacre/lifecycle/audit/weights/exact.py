"""C1: the same numbers under other names. Renaming, other shards, another dtype that holds the same values, frozen
parts and repeated layers keep whole tensors; independent training does not produce a single one twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nacre.lifecycle.audit.canonical import Key, View
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lifecycle.audit.weights.contents import is_whole, labels
from nacre.lifecycle.audit.weights.side import Settings, Side

TEST = "exact"
LEAST_SIZE = 64  # values; a smaller tensor is counted and decides nothing
LEAST_DISTINCT = 32  # different values among those looked at; fewer is a default (ones, zeros), not training
_LOOKED_AT = 4096
_UNMAPPED = "unmapped:"  # before the name of a tensor that has no role
_NOT_TRAINED = ("positions", "relative_bias")  # tables that a formula may fill


def probe(a: Side, b: Side, settings: Settings) -> Evidence:
    """The share of `a`'s parameters that lie in tensors which `b` holds too, bit for bit in float32.

    Tensors of `a` without a role count where `b` holds them. `value` is that share. p is exact: two trainings that
    share nothing agree in all of 64 or more floats with probability 0 for any purpose (it is reported as 1e-300).
    """
    a = _with_unmapped(a, b)
    ours, theirs = labels(a, b)
    held = Counter(theirs.values())
    ours = {key: digest for key, digest in ours.items() if not _is_unmapped(key) or digest in held}
    same = {key for key, digest in ours.items() if digest in held}
    counted = [key for key in sorted(same, key=str) if _is_evidence(a, key)]
    total = sum(_size(a, key) for key in ours)
    share = sum(_size(a, key) for key in same) / max(total, 1)
    detail = {
        "share": share,
        "equal": len(same),
        "tensors": len(ours),
        "counted": len(counted),
        "share_of_reference": _share(b, theirs, set(ours.values())),
        "same": ours == theirs,
        "multisets_equal": Counter(ours.values()) == held,
        "equal_keys": sorted(_name(key) for key in same)[:400],
        "moved": _moved(ours, theirs),
        "log10_p": -300.0 if counted else 0.0,
    }
    template = "{n} of {all} tensors ({share:.1%} of the parameters) are equal value for value"
    text = say(template, n=len(same), all=len(ours), share=share)
    assumption = "two trainings that share nothing never end in the same 64 or more floating-point numbers"
    return Evidence(TEST, share, 1e-300 if counted else 1.0, "exact", text, assumption, detail)


def _with_unmapped(a: Side, b: Side) -> Side:
    """`a` with the tensors without a role whose shape `b` has too: a decoy may stand in the place of one."""
    shapes = {view.shape for view in b.canonical.views.values()}
    names = (name for name in a.canonical.unmapped if name in a.source.infos)
    found: dict[Key, View] = {(None, f"{_UNMAPPED}{name}"): View(name, a.source.infos[name].shape) for name in names}
    more = {key: view for key, view in found.items() if view.shape in shapes}
    return replace(a, canonical=replace(a.canonical, views={**a.canonical.views, **more})) if more else a


def _is_unmapped(key: Key) -> bool:
    return key[1].startswith(_UNMAPPED)


def _is_evidence(side: Side, key: Key) -> bool:
    if key[1] in _NOT_TRAINED or _size(side, key) < LEAST_SIZE:
        return False
    view = side.canonical.views[key]
    rows = max(1, _LOOKED_AT * view.shape[0] // max(_size(side, key), 1))
    is_plain = is_whole(view, side.source.infos[view.name].shape)
    values = side.source.read(view.name, slice(0, rows)) if is_plain else view.read(side.source)[:rows]
    return len(np.unique(values.ravel()[:_LOOKED_AT])) >= LEAST_DISTINCT


def _size(side: Side, key: Key) -> int:
    return int(np.prod(side.canonical.views[key].shape, dtype=np.int64))


def _share(side: Side, hashes: Mapping[Key, bytes], held: set[bytes]) -> float:
    total = sum(_size(side, key) for key in hashes)
    return sum(_size(side, key) for key, digest in hashes.items() if digest in held) / max(total, 1)


def _moved(ours: Mapping[Key, bytes], theirs: Mapping[Key, bytes]) -> dict[str, list[int]]:
    """Layers of `b` in which each layer of `a` is found whole (for stacked and dropped layers)."""
    layers_a, layers_b = _by_layer(ours), _by_layer(theirs)
    places: dict[tuple[tuple[str, bytes], ...], list[int]] = {}
    for layer, content in layers_b.items():
        places.setdefault(content, []).append(layer)
    return {str(layer): places[content] for layer, content in layers_a.items() if content in places}


def _by_layer(hashes: Mapping[Key, bytes]) -> dict[int, tuple[tuple[str, bytes], ...]]:
    found: dict[int, list[tuple[str, bytes]]] = {}
    for (layer, role), digest in hashes.items():
        if layer is not None:
            found.setdefault(layer, []).append((role, digest))
    return {layer: tuple(sorted(content)) for layer, content in found.items()}


def _name(key: Key) -> str:
    return key[1] if key[0] is None else f"layers.{key[0]}.{key[1]}"
