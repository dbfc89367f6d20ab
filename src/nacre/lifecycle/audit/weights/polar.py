"""C5: a screen. The rotation that best carries one model's embedding into the other's is close to the identity only
where both have one basis; of two independent ones it is a random rotation, whose trace is all but zero."""

from __future__ import annotations

import math

import numpy as np

from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lifecycle.audit.weights.matching import as_p
from nacre.lifecycle.audit.weights.side import Settings, Side

TEST = "polar"
WIDEST = 256  # coordinates, the same ones on both sides


def probe(a: Side, b: Side, settings: Settings) -> Evidence:
    """s = tr(U) / d of U = polar(E_A^T E_B) over shared tokens and at most 256 coordinates.

    p ~ exp(-d^2 I(s)) by large deviations of the trace of a random rotation, an approximation: it decides nothing.
    """
    if a.tokens is None or b.tokens is None:
        return Evidence(TEST, None, text="no tokens are shared")
    one, other = a.embeddings(settings), b.embeddings(settings)
    if one.shape != other.shape:
        return Evidence(TEST, None, text=say("embeddings are {a} and {b} wide", a=one.shape[1], b=other.shape[1]))
    chosen = np.random.default_rng([settings.seed, 5]).permutation(one.shape[1])[: min(WIDEST, len(one) // 2)]
    one, other = (rows[:, chosen] - rows[:, chosen].mean(axis=0) for rows in (one, other))
    left, _, right = np.linalg.svd(one.T @ other)
    s, d = float(np.trace(left @ right)) / len(chosen), len(chosen)
    log10_p = 0.0 if s <= 0 else -(d**2) * rate(s) / math.log(10)
    text = say("the best rotation between the embeddings has a trace of {s:.3f} of its size", s=s)
    return Evidence(TEST, s, as_p(log10_p), "heuristic", text, detail={"log10_p": log10_p, "d": d, "n": len(one)})


def rate(s: float) -> float:
    """I(s) of P(tr U / d >= s) ~ exp(-d^2 I(s)) for a uniformly random rotation U, 0 <= s <= 1."""
    if s <= 0.5:
        return s * s / 2
    return 1 / 8 - math.log(2 * (1 - min(s, 1 - 1e-12))) / 4
