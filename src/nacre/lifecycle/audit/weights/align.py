"""Two models in one basis: which neuron is which, and the rotation of the hidden space, so that weights can be
subtracted. Only drawn neurons and rows are aligned: differences show in a part as in the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.weights.basis import match
from nacre.lifecycle.audit.weights.matching import Places, assign, unit_rows
from nacre.lifecycle.audit.weights.side import Block, Settings, Side

WIDEST = 2048  # hidden size up to which a rotation is looked for
_READS_HIDDEN = ("q", "k", "v", "gate", "up", "router")
_WRITES_HIDDEN = ("o", "down")
_SCALED = 0.15  # median distance of neurons' scales from 1, in logarithms, from which they count as changed


class Aligned(NamedTuple):
    """Rows of one matrix on both sides, in one basis, gains folded; `stored_a` and `stored_b` as they lie in the files
    (for levels and zeros). (R, C); neurons are rows of every feed-forward matrix, `down` transposed."""

    layer: int | None
    role: str
    a: Floats
    b: Floats
    stored_a: Floats
    stored_b: Floats


@dataclass(frozen=True)
class Alignment:
    """How `b` lies over `a`. `rotation` R (D, D): rows of b's embedding times R are a's; None where they need none.

    `neurons[i]`: drawn neurons of a's layer i and the same neurons in b's. `has_moved`: neurons are not where they
    were. `is_scaled`: their scale may differ.
    """

    layers: tuple[tuple[int, int], ...]
    rotation: Floats | None = None
    neurons: Mapping[int, tuple[Places, Places]] = field(default_factory=dict)
    blocks: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    has_moved: bool = False
    fits: bool = True
    note: str = ""


def align(a: Side, b: Side, pairs: list[dict[str, int]], settings: Settings, *, same_basis: bool) -> Alignment:
    """An alignment over `pairs` of layers, as C2 or C3 lists them.

    `same_basis`: C2 fired, so that hidden coordinates are the same ones. Otherwise the rotation is that of the
    embeddings; `fits` is False where none can be had (hidden sizes differ or are above 2,048).
    """
    layers = tuple((int(one["a"]), int(one["b"])) for one in pairs)
    chosen = {int(one["a"]): (int(one.get("block_a", 0)), int(one.get("block_b", 0))) for one in pairs}
    hidden = [side.shape(None, "embedding")[1] for side in (a, b)]
    rotation, note = None, ""
    if hidden[0] != hidden[1]:
        return Alignment(layers, fits=False, note=say("hidden sizes are {a} and {b}", a=hidden[0], b=hidden[1]))
    if not same_basis:
        if hidden[0] > WIDEST or a.tokens is None:
            return Alignment(layers, fits=False, note="the rotation between the two was not computed")
        rotation = _rotation(a, b, settings)
    neurons = {i: _neurons(a, b, i, j, chosen[i], rotation, settings) for i, j in layers}
    moved = any(not np.array_equal(one, other) for one, other in neurons.values())
    return Alignment(layers, rotation, neurons, chosen, moved, True, note)


def _rotation(a: Side, b: Side, settings: Settings) -> Floats:
    """polar(E_B^T E_A) over up to 4 D shared tokens: the orthogonal Procrustes solution."""
    rows = max(settings.tokens, 4 * a.shape(None, "embedding")[1])
    wide = Settings(tokens=rows, seed=settings.seed)
    left, _, right = np.linalg.svd(b.embeddings(wide).T @ a.embeddings(wide))
    return np.asarray(left @ right, np.float32)


def _block(side: Side, layer: int, number: int, settings: Settings) -> Block:
    blocks = side.blocks(layer)
    return blocks[min(number, len(blocks) - 1)]


def _neurons(
    a: Side, b: Side, i: int, j: int, chosen: tuple[int, int], rotation: Floats | None, settings: Settings
) -> tuple[Places, Places]:
    """Drawn neurons of a's layer i (rising) and their partners in b's layer j."""
    block_a, block_b = _block(a, i, chosen[0], settings), _block(b, j, chosen[1], settings)
    size_a, size_b = a.shape(i, block_a.up)[0], b.shape(j, block_b.up)[0]
    drawn = np.sort(np.random.default_rng([settings.seed, 6]).permutation(min(size_a, size_b))[: settings.neurons])
    if rotation is None and size_a == size_b:
        return drawn, drawn
    if rotation is None:
        one, other = a.folded(i, block_a.up), b.folded(j, block_b.up)
        if size_a < size_b:
            return drawn, match(one[drawn], other)
        partners = match(other[drawn], one)
        order = np.argsort(partners)
        return partners[order], drawn[order]
    return _by_weights(a, b, (i, block_a), (j, block_b), rotation, settings)


def _by_weights(
    a: Side, b: Side, at_a: tuple[int, Block], at_b: tuple[int, Block], rotation: Floats, settings: Settings
) -> tuple[Places, Places]:
    """Neurons whose weights, all three in one basis, are most alike; scales and a common sign of up and down are free.

    Surer than what they answer to tokens, once the rotation is known.
    """
    alike: Floats | None = None
    sizes = [side.shape(layer, block.up)[0] for side, (layer, block) in ((a, at_a), (b, at_b))]
    drawn = np.sort(np.random.default_rng([settings.seed, 6]).permutation(min(sizes))[: settings.neurons])
    is_narrower = sizes[1] < sizes[0]  # b, whose drawn neurons are then looked for in all of a's
    chosen = [np.arange(sizes[0]), drawn] if is_narrower else [drawn, np.arange(sizes[1])]
    for name_a, name_b in zip(at_a[1], at_b[1], strict=True):
        if name_a is None or name_b is None:
            continue
        one = unit_rows(_neuron_rows(a, at_a[0], name_a)[chosen[0]])
        other = unit_rows(_neuron_rows(b, at_b[0], name_b)[chosen[1]] @ rotation)
        cosine = one @ other.T
        part = cosine if name_a.startswith("gate") else np.abs(cosine)
        alike = part if alike is None else alike + part
    assert alike is not None
    if not is_narrower:
        return drawn, assign(alike)
    mine = assign(np.ascontiguousarray(alike.T))
    order = np.argsort(mine)
    return mine[order], drawn[order]


def _neuron_rows(side: Side, layer: int, role: str) -> Floats:
    """(F, D) a feed-forward matrix with one row for each neuron, gains folded."""
    return np.ascontiguousarray(side.read(layer, role).T) if role.startswith("down") else side.folded(layer, role)


def aligned(a: Side, b: Side, over: Alignment, settings: Settings) -> Iterator[Aligned]:
    """Every matrix of the aligned layers, one at a time; then embedding and head on shared tokens."""
    for i, j in over.layers:
        for role in ("q", "k", "v", "o"):
            if a.has(i, role) and b.has(j, role) and a.shape(i, role) == b.shape(j, role):
                yield _attention(a, b, over, i, j, role, settings)
        yield from _feed_forward(a, b, over, i, j, settings)
    for role in ("embedding", "head"):
        if a.tokens is not None and a.has(None, role) and b.has(None, role):
            yield _outside(a, b, over, role, settings)


def _attention(a: Side, b: Side, over: Alignment, i: int, j: int, role: str, settings: Settings) -> Aligned:
    stored_a, stored_b = a.read(i, role), b.read(j, role)
    one, other = _with_gain(a, i, role, stored_a), _with_gain(b, j, role, stored_b)
    rows = _drawn(len(one), settings)
    if over.rotation is not None:
        other = over.rotation.T[rows] @ other if role in _WRITES_HIDDEN else other[rows] @ over.rotation
        return Aligned(i, role, one[rows], other, stored_a[rows], stored_b[rows])
    return Aligned(i, role, one[rows], other[rows], stored_a[rows], stored_b[rows])


def _feed_forward(a: Side, b: Side, over: Alignment, i: int, j: int, settings: Settings) -> Iterator[Aligned]:
    mine, theirs = over.neurons[i]
    block_a, block_b = _block(a, i, over.blocks[i][0], settings), _block(b, j, over.blocks[i][1], settings)
    for name_a, name_b in zip(block_a, block_b, strict=True):
        if name_a is None or name_b is None:
            continue
        stored_a, stored_b = a.read(i, name_a), b.read(j, name_b)
        if name_a.startswith("down"):
            one, other = np.ascontiguousarray(stored_a[:, mine].T), np.ascontiguousarray(stored_b[:, theirs].T)
            stored = stored_a[_drawn(len(stored_a), settings)], stored_b[_drawn(len(stored_b), settings)]
        else:
            stored = stored_a[mine], stored_b[theirs]
            one, other = _with_gain(a, i, name_a, stored[0]), _with_gain(b, j, name_b, stored[1])
        other = other if over.rotation is None else other @ over.rotation
        other = _rescaled(one, other) if over.rotation is not None and not name_a.startswith("gate") else other
        yield Aligned(i, name_a, one, other, *stored)


def _outside(a: Side, b: Side, over: Alignment, role: str, settings: Settings) -> Aligned:
    if role == "embedding":
        one, other = a.embeddings(settings), b.embeddings(settings)
        return Aligned(None, role, one, other if over.rotation is None else other @ over.rotation, one, other)
    tokens = [np.arange(0) if side.tokens is None else side.tokens for side in (a, b)]
    rows = _drawn(len(tokens[0]), settings)
    stored = a.read(None, role)[tokens[0][rows]], b.read(None, role)[tokens[1][rows]]
    one, other = _with_gain(a, None, role, stored[0]), _with_gain(b, None, role, stored[1])
    return Aligned(None, role, one, other if over.rotation is None else other @ over.rotation, *stored)


def _with_gain(side: Side, layer: int | None, role: str, values: Floats) -> Floats:
    gain = side.gain(layer, role)
    return values if gain is None else values * gain


def _rescaled(one: Floats, other: Floats) -> Floats:
    """`other` with each row scaled to lie as close to `one`'s as it can; as it is where no scale was changed.

    Training and adapters turn rows and leave their scales about 1, which a fit would only add noise to.
    """
    scale = np.sum(one * other, axis=1, keepdims=True) / np.maximum(np.sum(other * other, axis=1, keepdims=True), 1e-20)
    if np.median(np.abs(np.log(np.maximum(np.abs(scale), 1e-6)))) < _SCALED:
        return other
    return np.asarray(other * scale, np.float32)


def _drawn(count: int, settings: Settings) -> Places:
    return np.sort(np.random.default_rng([settings.seed, 7]).permutation(count)[: settings.neurons])
