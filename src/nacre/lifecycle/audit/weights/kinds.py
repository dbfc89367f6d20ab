"""What kind of derivation it was: rules over the numbers of `delta.py`, in the order in which they explain most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nacre.lifecycle.audit.weights.align import Alignment
from nacre.lifecycle.audit.weights.delta import MatrixDelta
from nacre.lifecycle.audit.weights.side import Side

KEPT = 0.9  # of the reference's strongest directions, what a child still holds
_APART = 0.04  # how much better the rest is kept than the strongest part where only the start was shared
_SAME = 2e-3  # relative difference that a change of basis leaves through rounding
_FAR = 1.2  # relative difference of matrices that were not aligned (unrelated ones: sqrt 2)


class Finding(NamedTuple):
    """A kind (None: only the initialisation is shared), what was found in words, its numbers, the reference's share."""

    kind: str | None
    words: str
    numbers: Mapping[str, Any]
    share: float | None = None


def tell(a: Side, b: Side, over: Alignment, found: Sequence[MatrixDelta], exact: Mapping[str, Any]) -> Finding:
    """The kind of derivation of the subject `b` from the reference `a`, C1's detail at hand."""
    shape = _by_shape(a, b, exact)
    inside = [one for one in found if one.layer is not None and one.relative < _FAR]
    if not over.fits or not inside:
        if shape:
            return shape
        words = "the weights of the two were not brought into one basis" + (f" ({over.note})" if over.note else "")
        return Finding("fine-tuned", f"{words}, so that the kind is the most general one", {})
    if shape:
        return shape
    changed = [one for one in inside if one.relative > _SAME]
    if not changed:
        return _outside_only(a, b, over, found, inside)
    for rule in (_quantised, _pruned, _lora, _shared_start, _merged, _noised):
        told = rule(changed, inside)
        if told:
            return told
    numbers = {"relative": _median(changed, "relative"), "changed": len(changed), "matrices": len(inside)}
    words = (
        f"{len(changed)} of {len(inside)} matrices examined were trained on, by {numbers['relative']:.1%} of their size"
    )
    return Finding("fine-tuned", words, numbers)


def _by_shape(a: Side, b: Side, exact: Mapping[str, Any]) -> Finding | None:
    experts = [max(len(side.blocks(layer)) for layer in side.depths) for side in (a, b)]
    if experts[1] > experts[0]:
        return Finding(
            "upcycled", f"{experts[1]} experts stand where the reference has {experts[0]}", {"experts": experts}
        )
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


def _outside_only(
    a: Side, b: Side, over: Alignment, found: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]
) -> Finding:
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
    if over.rotation is None and not over.has_moved and all(one.equal for one in inside):
        return Finding("fine-tuned", "matrices examined are equal; norms, biases or other parts differ", {})
    return Finding(
        "renamed", "the same weights in another basis, order or scale", {"rotated": over.rotation is not None}
    )


def _quantised(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    bits = [one.bits for one in changed if one.bits is not None]
    if len(bits) < 0.6 * len(changed):
        return None
    value, group = Counter(bits).most_common(1)[0][0], Counter(one.group for one in changed).most_common(1)[0][0]
    where = "" if value == 16 else " per row" if group == 0 else f" in groups of {group}"
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
