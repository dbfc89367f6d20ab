"""C3: the same neurons, whatever the basis. Each neuron is described by what it answers to the model's own token
embeddings; the gate's matching and the up-projection's matching agree only where neurons are the same.

MATCH of Zhu et al. 2025 (arXiv 2502.12292, section 3) from weights alone. Nothing changes under a permutation or
rotation of the hidden space, a permutation or scaling of neurons, or gains folded into the matrices after them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lifecycle.audit.weights.matching import (
    Places,
    assign,
    distinct,
    fisher,
    log10_tail,
    monotone_path,
    spearman,
    unit_columns,
)
from nacre.lifecycle.audit.weights.side import Block, Settings, Side, normed, spread

TEST = "invariant"
# Noise of a rank correlation falls with the number of neurons, a bias common to trained models does not: beyond the
# size of the bank's models more neurons make no stronger statistic.
BANK_SIZE = 1024
_SCREEN_ROWS, _SCREEN_TOKENS = 48, 160


class Answers(NamedTuple):
    """(n, F) of one feed-forward to n tokens, columns centred and of length 1: of two projections, to be matched
    apart. `neurons` (F,) are the numbers of the columns' neurons, dead ones and repeats left out."""

    first: Floats
    second: Floats
    neurons: Places


@dataclass(frozen=True)
class BlockMatch:
    """Two feed-forwards held against each other: which neuron of the larger each drawn neuron of the smaller is."""

    layer_a: int
    layer_b: int
    block_a: int
    block_b: int
    rho: float
    rows: int
    agree: float


def probe(a: Side, b: Side, settings: Settings) -> Evidence:
    """Mean rank correlation of the two matchings over the best monotone pairing of layers, as a z-score.

    `value` = rho * sqrt(min(N, 1024)), N the neurons matched less one per block. The calibration table turns it into
    a p-value; `detail.log10_p_normal` is the normal tail, times the number of pairings, and decides nothing.
    """
    if a.tokens is None or b.tokens is None or len(a.tokens) < 32:
        return Evidence(TEST, None, text="there are too few shared tokens to ask both models about")
    depths_a, depths_b = _screened(a, b, settings)
    screen = _screen(a, b, depths_a, depths_b, settings)
    path = [(depths_a[i], depths_b[j]) for i, j in monotone_path(screen)]
    path = list(spread(tuple(path), settings.layers))
    blocks = [match_layers(a, b, i, j, settings) for i, j in path]
    rho = float(np.mean([one.rho for one in blocks]))
    n = sum(max(0, one.rows - 1) for one in blocks)
    detail = {
        "rho": rho,
        "layers": [{"a": one.layer_a, "b": one.layer_b, "rho": one.rho, "rows": one.rows, "agree": one.agree,
                    "block_a": one.block_a, "block_b": one.block_b} for one in blocks],
        "screen": {"a": list(depths_a), "b": list(depths_b), "score": np.round(screen, 4).tolist()},
        "log10_p_normal": _normal(blocks, len(depths_a), len(depths_b)),
        "n": n,
    }  # fmt: skip
    template = "gate and up projections agree on which neurons correspond: rho {rho:.3f} over {n} layer pairs"
    text = say(template, rho=rho, n=len(blocks))
    return Evidence(TEST, rho * math.sqrt(min(n, BANK_SIZE)), text=text, detail=detail)


def _normal(blocks: list[BlockMatch], depth_a: int, depth_b: int) -> float:
    combined = fisher([log10_tail(one.rho, one.rows) for one in blocks])
    return min(0.0, combined + math.log10(math.comb(max(depth_a, depth_b), min(depth_a, depth_b))))


def _screened(a: Side, b: Side, settings: Settings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The layers screened against each other: all, or at great and equal depth those spread over it."""
    if len(a.depths) == len(b.depths) and len(a.depths) > settings.all_pairs:
        return spread(a.depths, settings.layers), spread(b.depths, settings.layers)
    return a.depths, b.depths


def _screen(a: Side, b: Side, depths_a: tuple[int, ...], depths_b: tuple[int, ...], settings: Settings) -> Floats:
    """(L_a, L_b) share of a few drawn neurons whose nearest neighbour by gate and by up is one and the same."""
    draw = np.random.default_rng([settings.seed, 3])
    small = [_sketch(a, layer, settings, int(draw.integers(1 << 31))) for layer in depths_a]
    out = np.zeros((len(depths_a), len(depths_b)), np.float32)
    for j, layer in enumerate(depths_b):
        for block in _chosen_blocks(b, layer, settings):
            other = answers(b, layer, block, settings, n_tokens=_SCREEN_TOKENS)
            for i, sketches in enumerate(small):
                out[i, j] = max(out[i, j], *(_nearest_agree(one, other) for one in sketches))
    return out


def _sketch(side: Side, layer: int, settings: Settings, seed: int) -> list[Answers]:
    return side.once(("sketch", layer, settings, seed), lambda: _sketched(side, layer, settings, seed))


def _sketched(side: Side, layer: int, settings: Settings, seed: int) -> list[Answers]:
    found = []
    for block in _chosen_blocks(side, layer, settings):
        whole = answers(side, layer, block, settings, n_tokens=_SCREEN_TOKENS)
        chosen = np.random.default_rng(seed).permutation(whole.first.shape[1])[:_SCREEN_ROWS]
        found.append(Answers(whole.first[:, chosen].copy(), whole.second[:, chosen].copy(), whole.neurons[chosen]))
    return found


def _nearest_agree(one: Answers, other: Answers) -> float:
    if not one.first.size or not other.first.size:  # no neuron of a layer is alive
        return 0.0
    first = np.argmax(one.first.T @ other.first, axis=1)
    second = np.argmax(np.abs(one.second.T @ other.second), axis=1)
    return float(np.mean(first == second))


def _chosen_blocks(side: Side, layer: int, settings: Settings) -> tuple[Block, ...]:
    return spread(side.blocks(layer), settings.experts)


def answers(side: Side, layer: int, block: Block, settings: Settings, n_tokens: int | None = None) -> Answers:
    """What the neurons of one feed-forward answer to the shared tokens: gate and up, or up and down where not gated.

    The tokens are the rows of the model's own embedding, through the norm that precedes the feed-forward (down: the
    stream itself, which no gain changes).
    """
    stream = side.stream(settings)[:n_tokens]
    rows = normed(stream, is_centred=side.is_layer_norm)
    up = unit_columns(rows @ side.folded(layer, block.up).T)
    if block.gate is not None:
        return alive(unit_columns(rows @ side.folded(layer, block.gate).T), up)
    return alive(up, unit_columns(rows @ side.read(layer, block.down)))


def alive(first: Floats, second: Floats) -> Answers:
    """The answers of neurons that are alive in both projections, each of several equal ones (up to sign) once."""
    draw = np.random.default_rng(len(first)).standard_normal((2, len(first)), dtype=np.float32)
    marks = np.abs(np.stack([draw[0] @ first, draw[1] @ second], axis=1))
    kept = distinct(first.any(axis=0) & second.any(axis=0), marks.round(5))
    if len(kept) == first.shape[1]:
        return Answers(first, second, kept)
    return Answers(np.ascontiguousarray(first[:, kept]), np.ascontiguousarray(second[:, kept]), kept)


def match_layers(a: Side, b: Side, layer_a: int, layer_b: int, settings: Settings) -> BlockMatch:
    """The best pair of feed-forwards of two layers: the only one, or of a mixture's experts the nearest by screen."""
    blocks_a, blocks_b = _chosen_blocks(a, layer_a, settings), _chosen_blocks(b, layer_b, settings)
    best = (blocks_a[0], blocks_b[0])
    if len(blocks_a) * len(blocks_b) > 1:
        sketches = {one: _sketch(a, layer_a, settings, 0)[place] for place, one in enumerate(blocks_a)}
        best = max(
            ((one, other) for other in blocks_b for one in blocks_a),
            key=lambda pair: _nearest_agree(sketches[pair[0]], answers(b, layer_b, pair[1], settings, _SCREEN_TOKENS)),
        )
    ours, theirs = answers(a, layer_a, best[0], settings), answers(b, layer_b, best[1], settings)
    first, second = match_answers(ours, theirs, settings)
    return BlockMatch(
        layer_a, layer_b, blocks_a.index(best[0]), blocks_b.index(best[1]),
        spearman(first, second), len(first), float(np.mean(first == second)) if len(first) else 0.0,
    )  # fmt: skip


def match_answers(ours: Answers, theirs: Answers, settings: Settings) -> tuple[Places, Places]:
    """What drawn neurons of the narrower side are given among the wider one's, by each projection: their numbers."""
    few, many = (theirs, ours) if ours.first.shape[1] > theirs.first.shape[1] else (ours, theirs)
    chosen = np.random.default_rng([settings.seed, 4]).permutation(few.first.shape[1])[: settings.neurons]
    first = assign(few.first[:, chosen].T @ many.first)
    second = assign(np.abs(few.second[:, chosen].T @ many.second))
    return many.neurons[first], many.neurons[second]
