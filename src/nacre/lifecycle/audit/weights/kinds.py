"""What kind of derivation it was: rules over the numbers of `delta.py`, in the order in which they explain most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nacre.lifecycle.audit.weights.align import Alignment
from nacre.lifecycle.audit.weights.delta import MatrixDelta
from nacre.lifecycle.audit.weights.levels import WHOLE
from nacre.lifecycle.audit.weights.side import Side

KEPT = 0.9  # of the reference's strongest directions, what a child still holds
_APART = 0.04  # how much better the rest is kept than the strongest part where only the start was shared
_SAME = 2e-3  # relative difference that a change of basis leaves through rounding
_FAR = 1.2  # relative difference of matrices that were not aligned (unrelated ones: sqrt 2)


_MERGED = 0.3  # along the reference; less of it in one order of neurons is a common start sooner than a merge
_KNOWN = 0.1  # of a matrix lies along the reference's: aligned, however far it has moved


class Finding(NamedTuple):
    """A kind (None: only the initialisation is shared), what was found in words, its numbers, the reference's share."""

    kind: str | None
    words: str
    numbers: Mapping[str, Any]
    share: float | None = None


_SAME_FUNCTION = Finding("renamed", "the same weights in another basis, order or scale", {})


class Context(NamedTuple):
    """What other probes say: C1's detail, whether attention is one function on both sides (`attention.py`), and whether
    neurons keep their order at its ceiling while their answers to tokens agree for less than half."""

    exact: Mapping[str, Any]
    same_attention: bool = False
    only_order: bool = False


def tell(a: Side, b: Side, over: Alignment, found: Sequence[MatrixDelta], context: Context) -> Finding:
    """The kind of derivation of the subject `b` from the reference `a`."""
    shape = _by_shape(a, b, context.exact)
    inside = [one for one in found if one.layer is not None and (one.relative < _FAR or one.along > _KNOWN)]
    if context.same_attention:
        inside = [one for one in inside if one.role not in ("q", "k", "v", "o")]
    if not over.fits or not inside:
        if shape:
            return shape
        words = "the weights of the two were not brought into one basis" + (f" ({over.note})" if over.note else "")
        return Finding("fine-tuned", f"{words}, so that the kind is the most general one", {})
    if shape:
        return shape
    changed = [one for one in inside if one.relative > _SAME]
    if not changed:
        return _outside_only(a, b, over, found, context)
    for rule in (_quantised, _pruned, _lora):
        if told := rule(changed, inside):
            return told
    if told := _reembedded(found, changed):
        return told
    held = max(_median(changed, name) for name in ("kept", "kept_back"))
    if context.only_order and held < KEPT and _median(changed, "along") < _MERGED:
        return Finding(None, "neurons keep their order, and answer tokens in another way", {})
    for rule in (_shared_start, _merged, _noised):
        if told := rule(changed, inside):
            return told
    numbers = {"relative": _median(changed, "relative"), "changed": len(changed), "matrices": len(inside)}
    words = f"{len(changed)} of {len(inside)} matrices were trained on, by {numbers['relative']:.1%} of their size"
    return Finding("fine-tuned", words, numbers)


def _by_shape(a: Side, b: Side, exact: Mapping[str, Any]) -> Finding | None:
    experts = [max(len(side.blocks(layer)) for layer in side.depths) for side in (a, b)]
    if experts[1] > experts[0]:
        words = f"{experts[1]} experts stand where the reference has {experts[0]}"
        return Finding("upcycled", words, {"experts": experts})
    depths = [len(a.depths), len(b.depths)]
    if depths[0] != depths[1]:
        numbers = {"layers": depths, "moved": exact.get("moved", {})}
        return Finding("depth-changed", f"{depths[1]} layers were made of {depths[0]}", numbers)
    for what, sizes in _widths(a, b).items():
        if sizes[0] != sizes[1]:
            return Finding("width-changed", f"{what} went from {sizes[0]} to {sizes[1]}", {what: sizes})
    return None


def _widths(a: Side, b: Side) -> dict[str, list[int]]:
    blocks = [side.blocks(side.depths[0])[0] for side in (a, b)]
    sizes = {
        "the feed-forward": [side.shape(side.depths[0], one.up)[0] for side, one in zip((a, b), blocks, strict=True)],
        "the hidden size": [side.shape(side.depths[0], one.up)[1] for side, one in zip((a, b), blocks, strict=True)],
    }
    if all(side.has(side.depths[0], "q") for side in (a, b)):
        sizes["the queries"] = [side.shape(side.depths[0], "q")[0] for side in (a, b)]
    return sizes


def _outside_only(a: Side, b: Side, over: Alignment, found: Sequence[MatrixDelta], context: Context) -> Finding:
    """The stack is the same: what is left is the basis, the embedding, the head, the norms, the vocabulary."""
    outside = {one.role: one for one in found if one.layer is None and one.relative > _SAME}
    rows = [side.shape(None, "embedding")[0] for side in (a, b)]
    new = [role for role, one in outside.items() if one.relative > _FAR * 0.7]
    if new:
        return Finding("re-embedded", f"the stack is the reference's, {' and '.join(new)} are not", {"new": new})
    if outside:
        return Finding("fine-tuned", f"only {' and '.join(outside)} were trained on", {"changed": list(outside)})
    if rows[1] != rows[0]:
        words = f"the weights are the reference's, for {rows[1]:,} tokens in place of {rows[0]:,}"
        return Finding("vocabulary-extended", words, {"rows": rows})
    stored = [f"layers.{i}.{role}" for i, _ in over.layers for role in ("q", "k", "v", "o", "gate", "up", "down")]
    known = {"layers." + name.split(".", 1)[1] for name in context.exact["equal_keys"] if name.startswith("layers.")}
    if over.rotation is None and all(name in known for name in stored if _has(a, name)):
        return Finding("fine-tuned", "every matrix is the reference's; only norms, biases or the like differ", {})
    return _SAME_FUNCTION


def _has(side: Side, name: str) -> bool:
    _, layer, role = name.split(".", 2)
    return side.has(int(layer), role)


def _reembedded(found: Sequence[MatrixDelta], changed: Sequence[MatrixDelta]) -> Finding | None:
    """The embedding has nothing of the reference's where the stack has most."""
    own = [one for one in found if one.role == "embedding"]
    if not own or own[0].along > 0.2 or _median(changed, "along") < 0.6:
        return None
    words = "the embedding is another one, the stack was trained on from the reference's"
    return Finding("re-embedded", words, {"relative": _median(changed, "relative")})


def _quantised(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    bits = [one.bits for one in changed if one.bits is not None]
    if len(bits) < 0.6 * len(changed):
        return None
    value, group = Counter(bits).most_common(1)[0][0], Counter(one.group for one in changed).most_common(1)[0][0]
    where = {None: "", 0: " per row", WHOLE: " per matrix"}.get(group, f" in groups of {group}")
    words = f"values lie on a grid of {value} bits{where}"
    return Finding("quantized", words, {"bits": value, "group": group, "matrices": len(bits)})


def _pruned(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    zeros, before = _median(changed, "zeros_b"), _median(changed, "zeros_a")
    if zeros - before < 0.05:
        return None
    found = Counter(one.pattern for one in changed).most_common(1)[0][0]
    survivors = _median(changed, "survivors")
    words = f"{zeros:.0%} of the values are zero" + (f" in a {found} pattern" if found else "")
    words += f", {survivors:.0%} of the others are the reference's"
    return Finding("pruned", words, {"zeros": zeros, "pattern": found, "survivors": survivors})


def _lora(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    low = [one for one in changed if 0 < one.rank <= one.least_side // 2 and one.energy >= 0.95]
    if len(low) < 0.6 * len(changed):
        return None
    rank, count = Counter(one.rank for one in low).most_common(1)[0]
    if count < 0.5 * len(low):
        return None
    words = f"the difference has rank {rank} in {count} of {len(changed)} changed matrices"
    return Finding("lora", words, {"rank": rank, "matrices": len(changed), "untouched": len(inside) - len(changed)})


def _shared_start(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    """What training made strongest is lost in both directions, and what it left alone is not."""
    kept, back, bulk = (_median(changed, name) for name in ("kept", "kept_back", "bulk"))
    if max(kept, back) >= KEPT or bulk - kept < _APART:
        return None
    words = f"of what training made strongest {kept:.0%} is shared, of the rest {bulk:.0%}: they start alike and part"
    return Finding(None, words, {"kept": kept, "kept_back": back, "bulk": bulk})


def _merged(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    along = np.array([one.along for one in changed])
    kept, bulk = _median(changed, "kept"), _median(changed, "bulk")
    share = float(np.median(along))
    if share > 0.95 or abs(kept - bulk) > _APART or _median(changed, "relative") < 0.05:
        return None
    error = 1.96 * float(along.std()) / max(len(along), 1) ** 0.5
    by_layer = {one.layer: round(one.along, 3) for one in changed if one.role.startswith("up")}
    numbers = {"share": share, "low": share - error, "high": share + error, "by_layer": by_layer}
    return Finding("merged", f"the reference makes up {share:.0%} of a merge", numbers, share)


def _noised(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    top, kurtosis, kept = (_median(changed, name) for name in ("top", "kurtosis", "kept"))
    if top > 1.1 or abs(kurtosis) > 0.2 or abs(kept - 1) > 0.1:
        return None
    numbers = {"relative": _median(changed, "relative"), "top": top, "kurtosis": kurtosis}
    return Finding("noised", f"the difference is noise of {numbers['relative']:.1%} of the weights' size", numbers)


def _median(found: Sequence[MatrixDelta], name: str) -> float:
    return float(np.median([getattr(one, name) for one in found]))
