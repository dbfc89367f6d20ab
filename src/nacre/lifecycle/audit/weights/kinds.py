"""What kind of derivation it was: rules over the numbers of `delta.py`, in the order in which they explain most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.weights.align import Alignment
from nacre.lifecycle.audit.weights.delta import MatrixDelta
from nacre.lifecycle.audit.weights.levels import WHOLE
from nacre.lifecycle.audit.weights.side import Side

# Of the strongest directions of one, what the other holds: on the bank's calibration side at least 0.92 of a parent's
# after training for three times its budget, at most 0.58 where only the start was shared. Halfway between.
KEPT = 0.75
_SAME = 2e-3  # relative difference that a change of basis leaves through rounding
_GRIDS: Mapping[int | str | None, str] = {
    None: "values lie on a grid of {bits} bits",
    0: "values lie on a grid of {bits} bits per row",
    WHOLE: "values lie on a grid of {bits} bits per matrix",
    "groups": "values lie on a grid of {bits} bits in groups of {group}",
}
_WIDTHS = {
    "ffn": "the feed-forward went from {old} to {new}",
    "hidden": "the hidden size went from {old} to {new}",
    "queries": "the queries went from {old} to {new}",
}
_FOREIGN = 0.84  # relative difference from which an embedding or head is another one (unrelated ones: sqrt 2)


_LEAST_ADDED = 0.75  # of what models of one size would add to a merge; less is the same model, shrunk
_ATTENTION = ("q", "k", "v", "o")
_KNOWN = 0.1  # of a matrix lies along the reference's: aligned, however far it has moved


class Finding(NamedTuple):
    """A kind (None: only the initialisation is shared), what was found in words, its numbers, the reference's share."""

    kind: str | None
    words: str
    numbers: Mapping[str, Any]
    share: float | None = None


_SAME_FUNCTION = Finding("renamed", "the same weights in another basis, order or scale", {})


class Context(NamedTuple):
    """What else is known: C1's detail, and whether attention is one function on both sides (`attention.py`)."""

    exact: Mapping[str, Any]
    same_attention: bool = False


def tell(a: Side, b: Side, over: Alignment, found: Sequence[MatrixDelta], context: Context) -> Finding:
    """The kind of derivation of the subject `b` from the reference `a`."""
    if told := _by_shape(a, b, context.exact) or _whole(context.exact):
        return told
    inside = [one for one in found if one.layer is not None and _is_aligned(one, over, context)]
    if not over.fits or not inside:
        words = "the two were not brought into one basis ({why}), so that the kind is the most general one"
        return Finding("fine-tuned", say(words, why=over.note or "their matrices are too far apart"), {})
    changed = [one for one in inside if one.relative > _SAME]
    if not changed:
        return _outside_only(a, b, over, found, context)
    for rule in (_only_zeros, _quantised, _pruned, _lora):
        if told := rule(changed, inside):
            return told
    if told := _reembedded(found, changed) or _grown(a, b, found, changed):
        return told
    if told := _merged(changed, inside):
        return told
    for rule in (_shared_start, _noised):
        if told := rule(changed, inside):
            return told
    numbers = {"relative": _median(changed, "relative"), "changed": len(changed), "matrices": len(inside)}
    trained = "{n} of {all} matrices were trained on, by {relative:.1%} of their size"
    return Finding("fine-tuned", say(trained, n=len(changed), all=len(inside), relative=numbers["relative"]), numbers)


def _is_aligned(one: MatrixDelta, over: Alignment, context: Context) -> bool:
    """Whether a matrix was brought over its counterpart, so that its difference means something.

    Heads may be in another order, and queries and keys turned within them: those of one function are left out.
    """
    if one.role in _ATTENTION:
        return not context.same_attention and one.along > _KNOWN
    return over.rotation is None or one.along > _KNOWN


def _by_shape(a: Side, b: Side, exact: Mapping[str, Any]) -> Finding | None:
    experts = [max(len(side.blocks(layer)) for layer in side.depths) for side in (a, b)]
    if experts[1] > experts[0]:
        words = say("{new} experts stand where the reference has {old}", new=experts[1], old=experts[0])
        return Finding("upcycled", words, {"experts": experts})
    depths = [len(a.depths), len(b.depths)]
    if depths[0] != depths[1]:
        numbers = {"layers": depths, "moved": exact.get("moved", {})}
        return Finding("depth-changed", say("{new} layers were made of {old}", new=depths[1], old=depths[0]), numbers)
    for what, sizes in _widths(a, b).items():
        if sizes[0] != sizes[1]:
            return Finding("width-changed", say(_WIDTHS[what], old=sizes[0], new=sizes[1]), {what: sizes})
    return None


def _whole(exact: Mapping[str, Any]) -> Finding | None:
    """Every tensor of the reference is in the subject, whatever its place."""
    if exact["multisets_equal"]:
        return Finding("renamed", "every tensor is the reference's, value for value, in another place", {})
    if exact["share_of_reference"] < 1:
        return None
    more = exact["tensors"] - exact["equal"]
    words = say("every tensor of the reference is in the subject, value for value, beside {n} others", n=more)
    return Finding("renamed", words, {"more": more})


def _widths(a: Side, b: Side) -> dict[str, list[int]]:
    blocks = [side.blocks(side.depths[0])[0] for side in (a, b)]
    sizes = {
        "ffn": [side.shape(side.depths[0], one.up)[0] for side, one in zip((a, b), blocks, strict=True)],
        "hidden": [side.shape(side.depths[0], one.up)[1] for side, one in zip((a, b), blocks, strict=True)],
    }
    if all(side.has(side.depths[0], "q") for side in (a, b)):
        sizes["queries"] = [side.shape(side.depths[0], "q")[0] for side in (a, b)]
    return sizes


def _outside_only(a: Side, b: Side, over: Alignment, found: Sequence[MatrixDelta], context: Context) -> Finding:
    """The stack is the same: what is left is the basis, the embedding, the head, the norms, the vocabulary."""
    outside = {one.role: one for one in found if one.layer is None and one.relative > _SAME}
    lost = [one for one in found if one.role in _ATTENTION and one.along <= _KNOWN]
    if lost and not context.same_attention:
        return Finding("fine-tuned", "the feed-forward layers are the reference's, attention is another function", {})
    rows = [side.shape(None, "embedding")[0] for side in (a, b)]
    new = [role for role, one in outside.items() if one.relative > _FOREIGN]
    if new:
        words = say("the stack is the reference's; these are not: {parts}", parts=new)
        return Finding("re-embedded", words, {"new": new})
    if outside:
        words = say("the stack is the reference's; trained on: {parts}", parts=list(outside))
        return Finding("fine-tuned", words, {"changed": list(outside)})
    if rows[1] != rows[0]:
        what = "the weights are the reference's, for {new:,} tokens in place of {old:,}"
        words = say(what, new=rows[1], old=rows[0])
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


def _grown(a: Side, b: Side, found: Sequence[MatrixDelta], changed: Sequence[MatrixDelta]) -> Finding | None:
    """More rows of the embedding, and those of shared tokens trained on from the reference's."""
    rows = [side.shape(None, "embedding")[0] if side.has(None, "embedding") else 0 for side in (a, b)]
    own = [one for one in found if one.role == "embedding"]
    if rows[1] <= rows[0] or not own or own[0].along < 0.5 or _median(changed, "along") < 0.5:
        return None
    relative = _median(changed, "relative")
    words = "{new:,} tokens stand where the reference has {old:,}, and the stack was trained on by {relative:.1%}"
    return Finding("vocabulary-extended", say(words, new=rows[1], old=rows[0], relative=relative), {"rows": rows})


def _quantised(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    bits = [one.bits for one in changed if one.bits is not None]
    if len(bits) < 0.6 * len(changed):
        return None
    value, group = Counter(bits).most_common(1)[0][0], Counter(one.group for one in changed).most_common(1)[0][0]
    words = say(_GRIDS[group if group in _GRIDS else "groups"], bits=value, group=group)
    return Finding("quantized", words, {"bits": value, "group": group, "matrices": len(bits)})


def _only_zeros(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    """Pruned and nothing else. Before grids are looked for: a few values in many zeros may lie on one by chance."""
    told = _pruned(changed, inside)
    return told if told and told.numbers["survivors"] > 0.9 else None


def _pruned(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    zeros, before = _median(changed, "zeros_b"), _median(changed, "zeros_a")
    if zeros - before < 0.05:
        return None
    found = Counter(one.pattern for one in changed).most_common(1)[0][0]
    survivors = _median(changed, "survivors")
    patterned = "{zeros:.0%} of the values are zero, {found}; {survivors:.0%} of the others are the reference's"
    plain = "{zeros:.0%} of the values are zero, {survivors:.0%} of the others are the reference's"
    words = say(patterned if found else plain, zeros=zeros, found=found, survivors=survivors)
    return Finding("pruned", words, {"zeros": zeros, "pattern": found, "survivors": survivors})


def _lora(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    low = [one for one in changed if 0 < one.rank <= one.least_side // 2 and one.energy >= 0.95]
    if len(low) < 0.6 * len(changed):
        return None
    rank, count = Counter(one.rank for one in low).most_common(1)[0]
    if count < 0.5 * len(low):
        return None
    what = "the difference has rank {rank} in {n} of {all} changed matrices"
    words = say(what, rank=rank, n=count, all=len(changed))
    return Finding("lora", words, {"rank": rank, "matrices": len(changed), "untouched": len(inside) - len(changed)})


def _shared_start(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    """What training made strongest in one is not in the other, in either direction: only where they began is shared."""
    kept, back, bulk = (_median(changed, name) for name in ("kept", "kept_back", "bulk"))
    if max(kept, back) >= KEPT:
        return None
    words = "of what training made strongest {kept:.0%} is shared, of the rest {bulk:.0%}: they start alike and part"
    return Finding(None, say(words, kept=kept, bulk=bulk), {"kept": kept, "kept_back": back, "bulk": bulk})


def _merged(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    """One share s in every matrix, and what is added is as large as another model's part of a mixture would be.

    b = s a + (1 - s) c, with c of a's size and unlike it, gives <a, b>/|a|^2 = s and |b - a|/|a| = sqrt(2) (1 - s).
    A common start of which s is left in both gives sqrt(2) (1 - s)^(1/2): the nearer one, in logarithms, is meant.
    """
    along, relative = (np.array([getattr(one, name) for one in changed]) for name in ("along", "relative"))
    share, spread = float(np.median(along)), float(np.subtract(*np.quantile(along, [0.75, 0.25])))
    rest = np.clip(1 - along, 1e-6, None)
    added = float(np.median(relative / (math.sqrt(2) * rest)))
    if not 0 < share <= 0.95 or spread > 0.1 or not _LEAST_ADDED < added < float(np.median(rest)) ** -0.25:
        return None
    error = 1.96 * float(along.std()) / len(along) ** 0.5
    by_layer = {one.layer: round(one.along, 3) for one in changed if one.role.startswith("up")}
    numbers = {"share": share, "low": share - error, "high": share + error, "by_layer": by_layer}
    return Finding("merged", say("the reference makes up {share:.0%} of a merge", share=share), numbers, share)


def _noised(changed: Sequence[MatrixDelta], inside: Sequence[MatrixDelta]) -> Finding | None:
    top, kurtosis, kept = (_median(changed, name) for name in ("top", "kurtosis", "kept"))
    if top > 1.1 or abs(kurtosis) > 0.2 or abs(kept - 1) > 0.1:
        return None
    numbers = {"relative": _median(changed, "relative"), "top": top, "kurtosis": kurtosis}
    words = say("the difference is noise of {size:.1%} of the weights' size", size=numbers["relative"])
    return Finding("noised", words, numbers)


def _median(found: Sequence[MatrixDelta], name: str) -> float:
    return float(np.median([getattr(one, name) for one in found]))
