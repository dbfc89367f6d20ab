"""C4: the stack without its embeddings. Where these were replaced, the hidden basis is taken from the stack itself:
eigenvectors of the sum of all gate and up projections' second moments. It holds while the stack is little changed."""

from __future__ import annotations

import math

import numpy as np

from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lifecycle.audit.weights.invariant import BANK_SIZE, Answers, alive, match_answers
from nacre.lifecycle.audit.weights.matching import spearman, unit_columns
from nacre.lifecycle.audit.weights.side import Settings, Side, spread

TEST = "body"
WIDEST = 2048  # hidden size; eigenvectors of a wider square take minutes


def probe(a: Side, b: Side, settings: Settings) -> Evidence:
    """C3's statistic with neurons described by |W V|, V the stack's own eigenvectors (their signs mean nothing).

    `value` as C3's. None where hidden sizes or depths differ, or the hidden size is above 2,048.
    """
    reason = _unfit(a, b)
    if reason:
        return Evidence(TEST, None, text=reason)
    pairs = spread(tuple(zip(a.depths, b.depths, strict=True)), settings.layers)
    axes_a, axes_b = _axes(a, tuple(i for i, _ in pairs)), _axes(b, tuple(j for _, j in pairs))
    rows = []
    for i, j in pairs:
        first, second = match_answers(_seen(a, i, axes_a), _seen(b, j, axes_b), settings)
        rows.append({"a": i, "b": j, "rho": spearman(first, second), "rows": len(first)})
    rho = float(np.mean([float(row["rho"]) for row in rows]))
    n = sum(max(0, int(row["rows"]) - 1) for row in rows)
    detail = {"rho": rho, "layers": rows, "n": n}
    text = say("in the stack's own axes gate and up agree on which neurons correspond: rho {rho:.3f}", rho=rho)
    return Evidence(TEST, rho * math.sqrt(min(n, BANK_SIZE)), text=text, detail=detail)


def _unfit(a: Side, b: Side) -> str:
    widths = [side.shape(side.depths[0], side.blocks(side.depths[0])[0].up)[1] for side in (a, b)]
    if widths[0] != widths[1]:
        return say("hidden sizes are {a} and {b}", a=widths[0], b=widths[1])
    if widths[0] > WIDEST:
        return say("the hidden size {d} is above {most}, and eigenvectors would take minutes", d=widths[0], most=WIDEST)
    return "" if len(a.depths) == len(b.depths) else "depths differ"


def _parts(side: Side, layer: int) -> tuple[Floats, Floats]:
    """(F, D) of the first feed-forward: gate and up, or up and down where it is not gated."""
    block = side.blocks(layer)[0]
    up = side.folded(layer, block.up)
    if block.gate is not None:
        return side.folded(layer, block.gate), up
    return up, np.ascontiguousarray(side.read(layer, block.down).T)


def _axes(side: Side, layers: tuple[int, ...]) -> Floats:
    return side.once((TEST, layers), lambda: _eigenvectors(side, layers))


def _eigenvectors(side: Side, layers: tuple[int, ...]) -> Floats:
    """(D, D) eigenvectors, strongest first."""
    total: Floats | None = None
    for layer in layers:
        for part in _parts(side, layer):
            square = part.T @ part
            total = square if total is None else total + square
    return (
        np.ascontiguousarray(np.linalg.eigh(total)[1][:, ::-1]) if total is not None else np.zeros((0, 0), np.float32)
    )


def _seen(side: Side, layer: int, axes: Floats) -> Answers:
    first, second = (np.abs(part @ axes) for part in _parts(side, layer))
    return alive(*(unit_columns((part - part.mean(axis=0)).T) for part in (first, second)))
