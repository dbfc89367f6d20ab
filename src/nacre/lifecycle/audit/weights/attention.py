"""Whether attention computes the same on both sides: heads may be in another order, queries and keys turned within
them, values mixed. None of that changes q^T q, k^T k summed over heads, and the product of output and value."""

from __future__ import annotations

import numpy as np

from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.weights.align import Alignment
from nacre.lifecycle.audit.weights.side import Side

_PROBES, _LAYERS = 16, 4
_SAME = 5e-3  # relative difference that rounding leaves


def attention_is_same(a: Side, b: Side, over: Alignment) -> bool:
    """Whether the aligned layers' attention (four of them at most) is one function; False where it has other parts."""
    for i, j in over.layers[:_LAYERS]:
        if not all(side.has(layer, role) for side, layer in ((a, i), (b, j)) for role in ("q", "k", "v", "o")):
            return False
        hidden = a.shape(i, "q")[1]
        x = np.random.default_rng([i, 8]).standard_normal((hidden, _PROBES)).astype(np.float32)
        turned = x if over.rotation is None else over.rotation @ x
        for ours, theirs in zip(_seen(a, i, x), _seen(b, j, turned), strict=True):
            theirs = theirs if over.rotation is None else over.rotation.T @ theirs
            if ours.shape != theirs.shape or np.linalg.norm(ours - theirs) > _SAME * np.linalg.norm(ours):
                return False
    return True


def _seen(side: Side, layer: int, x: Floats) -> tuple[Floats, Floats, Floats]:
    """(D, n) each: q^T q x, k^T k x and o v x, every group's value read by all of its heads."""
    q, k, v, o = (side.folded(layer, role) for role in ("q", "k", "v", "o"))
    groups = side.canonical.sizes.kv_heads or side.canonical.sizes.heads or 1
    value = v @ x
    width = len(v) // groups
    repeated = np.repeat(value.reshape(groups, width, -1), max(1, o.shape[1] // len(v)), axis=0)
    return q.T @ (q @ x), k.T @ (k @ x), o @ repeated.reshape(o.shape[1], -1)
