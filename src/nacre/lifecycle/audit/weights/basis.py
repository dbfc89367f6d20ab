"""C2: the same neurons in the same order. Rows of the up-projection are matched by cosine; were the two trainings
independent, the matching would be a uniformly random order, whatever the data and the design.

Cosine similarity of weights, Zhu et al. 2025 (arXiv 2502.12292), section 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lifecycle.audit.weights.matching import (
    Places,
    as_p,
    assign,
    distinct,
    fisher,
    log10_tail,
    spearman,
    unit_rows,
)
from nacre.lifecycle.audit.weights.side import Settings, Side, spread

TEST = "basis"
SURE = math.log10(1e-6)  # p below which two models have one order of neurons, so that hidden channels are the same
ASSUMPTION = (
    "training is equivariant under permutations of hidden neurons (independent initialisation, any optimiser that "
    "treats them alike), and no one has sorted the neurons since"
)


def probe(a: Side, b: Side, settings: Settings) -> Evidence:
    """Spearman of the matching with the identity over blocks, Fisher's p over them.

    `value` is the mean over the blocks examined. With equal depth block l is held against block l; otherwise each
    of the shallower model's against all, and the smallest p is multiplied by their number. None where widths differ.
    """
    if _width(a) != _width(b):
        return Evidence(TEST, None, text=say("no common basis: hidden sizes are {a} and {b}", a=_width(a), b=_width(b)))
    if len(a.depths) == len(b.depths):
        pairs = spread(tuple(zip(a.depths, b.depths, strict=True)), settings.layers)
        rows = [(i, j, *_block(a, b, i, j, settings)) for i, j in pairs]
        log10_p = fisher([log10_tail(rho, count) for _, _, rho, count in rows])
    else:
        rows, log10_p = _best_of_all(a, b, settings)
    mean = float(np.mean([row[2] for row in rows])) if rows else 0.0
    detail = {
        "log10_p": log10_p,
        "layers": [{"a": i, "b": j, "rho": rho, "rows": count, "log10_p": log10_tail(rho, count)}
                   for i, j, rho, count in rows],
    }  # fmt: skip
    template = "neurons keep their order with a rank correlation of {rho:.3f} in {n} pairs of layers"
    text = say(template, rho=mean, n=len(rows))
    return Evidence(TEST, mean, as_p(log10_p), "exact", text, ASSUMPTION, detail)


def fires(order: Evidence) -> bool:
    """Whether what `probe` found leaves no doubt that both models have one order of neurons, and so one basis."""
    return order.value is not None and float(order.detail["log10_p"]) < SURE


def _width(side: Side) -> int:
    layer = side.depths[0]
    return side.shape(layer, side.blocks(layer)[0].up)[1]


def _block(a: Side, b: Side, i: int, j: int, settings: Settings) -> tuple[float, int]:
    """(Spearman with the identity, rows matched) of the first feed-forward of two layers."""
    ours, theirs = _rows(a, i), _rows(b, j)
    if len(ours.places) > len(theirs.places):
        ours, theirs = theirs, ours
    chosen = np.arange(len(ours.places))
    if len(chosen) > settings.neurons:
        chosen = np.sort(np.random.default_rng([settings.seed, 2]).permutation(len(chosen))[: settings.neurons])
        if np.array_equal(ours.places, theirs.places):
            theirs = _Rows(theirs.places[chosen], theirs.values[chosen])
    pi = match(ours.values[chosen], theirs.values)
    return spearman(theirs.places[pi], ours.places[chosen]), len(pi)


def match(one: Floats, other: Floats) -> Places:
    """Which row of `other` each row of `one` is given, by cosine. Ties fall by a drawn order, not by that of rows."""
    order = np.random.default_rng(len(other)).permutation(len(other))
    return order[assign(unit_rows(one) @ unit_rows(other[order]).T)]


class _Rows(NamedTuple):
    """Neurons' numbers (F,) and their rows of the up-projection (F, D)."""

    places: Places
    values: Floats


def _rows(side: Side, layer: int) -> _Rows:
    """Rows that are alive, each of several equal ones once."""
    values = side.folded(layer, side.blocks(layer)[0].up)
    mark = values @ np.random.default_rng(values.shape[1]).standard_normal(values.shape[1], dtype=np.float32)
    kept = distinct(values.any(axis=1), mark)
    return _Rows(kept, values if len(kept) == len(values) else values[kept])


def _best_of_all(a: Side, b: Side, settings: Settings) -> tuple[list[tuple[int, int, float, int]], float]:
    """For the shallower side's layers the best of the other side; p of the smallest times the number of pairs."""
    turned = len(a.depths) > len(b.depths)
    few, many = (b, a) if turned else (a, b)
    rows: list[tuple[int, int, float, int]] = []
    smallest, n_pairs = 0.0, 0
    for i in spread(few.depths, max(2, settings.layers // 2)):
        found = [(j, *_block(few, many, i, j, settings)) for j in many.depths]
        n_pairs += len(found)
        j, rho, count = max(found, key=lambda one: one[1])
        smallest = min(smallest, log10_tail(rho, count))
        rows.append((j, i, rho, count) if turned else (i, j, rho, count))
    return rows, min(0.0, smallest + math.log10(max(n_pairs, 1)))
