"""Whether attention computes the same on both sides: heads may be in another order, queries and keys turned and scaled
within them, values mixed. None of that changes the products of query and key, and of output and value, over heads."""

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


def _seen(side: Side, layer: int, x: Floats) -> tuple[Floats, Floats]:
    """(D, n) each: q^T k x and o v x summed over heads, every group's key and value read by all of its heads."""
    q, k, v, o = (side.folded(layer, role) for role in ("q", "k", "v", "o"))
    groups = side.canonical.sizes.kv_heads or side.canonical.sizes.heads or 1
    return q.T @ _repeated(k @ x, groups, len(q)), o @ _repeated(v @ x, groups, o.shape[1])


def _repeated(rows: Floats, groups: int, count: int) -> Floats:
    """(groups * E, n) to (`count`, n): each group's rows once for each head that reads it."""
    grouped = rows.reshape(groups, len(rows) // groups, -1)
    return np.repeat(grouped, max(1, count // len(rows)), axis=0).reshape(count, -1)
