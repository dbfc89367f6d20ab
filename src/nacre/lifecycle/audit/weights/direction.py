"""Who came first, as far as files alone can tell: what was lost in a step stands downstream of what still has it.

Rounding and pruning lose numbers, so that their result cannot have been the source. A merge lies between its parents
and a grown vocabulary has more rows: it could be the other way round, and usually is not. A difference of low rank, or
any other training, is one in both directions. Dates and lineage records are claims: they are shown and not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from nacre.lifecycle.audit.said import Said, say
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.weights.levels import WHOLE, is_half, rounding, zero_share

First = Literal["reference", "subject"]
Basis = Literal["loss", "usual", "nothing"]
_MOST_OFF = 0.01  # entries of a rounding that need not fit
_UNIFORM = (0.2, 0.36)  # root mean square of rounding errors in steps; 0.289 where they are spread evenly
_EQUAL, _ZEROS = 0.999, 0.05
_LOSSES: Mapping[str, str] = {
    "pruned": "{first} was first: {other} is its weights with some set to zero, which cannot be undone",
    "rounded": "{first} was first: {other} is its weights rounded to fewer bits, which cannot be undone",
}
_SIDES: Mapping[First, str] = {"reference": "the reference", "subject": "the subject"}


@dataclass(frozen=True)
class Direction:
    """`first`: which side the other comes from, None where files cannot tell. `basis`: `loss`, a step that cannot be
    undone; `usual`, what is customary and not proven; `nothing`. `claims`: what records and dates say, not used.
    `words` name the sides as `first` and `other`, where one was."""

    first: First | None
    words: Said
    basis: Basis
    claims: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def told(
    kind: str | None,
    numbers: Mapping[str, Any],
    matrices: Iterable[tuple[Floats, Floats]] = (),
    *,
    is_merge: bool = False,
    claims: Sequence[str] = (),
) -> Direction:
    """The direction of a derivation of `kind`. `matrices` are a few of (the reference's, the subject's), in one basis
    and as they lie in the files; `is_merge`: the references explain the subject nearly fully as their merge."""
    said = tuple(claims)
    seen = {_lost(one, other) for one, other in matrices if one.shape == other.shape and not np.array_equal(one, other)}
    if len(seen) == 1 and None not in seen:
        lost = seen.pop()
        assert lost is not None
        first, how = lost
        words = say(_LOSSES[how], first=_SIDES[first], other=_SIDES[_other(first)])
        return Direction(first, words, "loss", said)
    if is_merge:
        words = say(
            "the references were first, as parents of a merge usually are: {other} lies between them",
            other=_SIDES["subject"],
        )
        return Direction("reference", words, "usual", said)
    rows = numbers.get("rows")
    if kind == "vocabulary-extended" and isinstance(rows, Sequence) and len(rows) == 2 and rows[0] != rows[1]:
        later: First = "subject" if rows[1] > rows[0] else "reference"
        words = say(
            "{first} was first, if the vocabulary grew, as is usual; it could have been cut",
            first=_SIDES[_other(later)],
        )
        return Direction(_other(later), words, "usual", said)
    if kind == "lora":
        both = "the files do not say who was first: a difference of low rank is one in both directions"
        return Direction(None, say(both), "nothing", said)
    return Direction(None, say("the files do not say who was first"), "nothing", said)


def _other(side: First) -> First:
    return "subject" if side == "reference" else "reference"


def _lost(one: Floats, other: Floats) -> tuple[First, str] | None:
    """Which side the other was made of by a step that loses numbers, and how; None where neither or both."""
    found: list[tuple[First, str]] = []
    sides: tuple[tuple[First, Floats, Floats], ...] = (("reference", one, other), ("subject", other, one))
    for first, fine, coarse in sides:
        if is_pruning(fine, coarse):
            found.append((first, "pruned"))
        elif is_rounding(fine, coarse):
            found.append((first, "rounded"))
    return found[0] if len(found) == 1 else None


def is_pruning(fine: Floats, coarse: Floats) -> bool:
    """Whether `coarse` is `fine` with more zeros and no other change."""
    kept = coarse != 0
    more = zero_share(coarse) - zero_share(fine)
    return more >= _ZEROS and bool(kept.any()) and float(np.mean(coarse[kept] == fine[kept])) >= _EQUAL


def is_rounding(fine: Floats, coarse: Floats) -> bool:
    """Whether `coarse` (R, C) is `fine` rounded to a grid that `fine` does not lie on: every value to its nearest
    level, with errors spread evenly up to half a step. Training on from a rounded model leaves another spread."""
    if is_half(coarse) and not is_half(fine):
        halves = (fine.astype(np.float16).astype(np.float32), _bfloat16(fine))
        if any(float(np.mean(one == coarse)) >= _EQUAL for one in halves):
            return True
    ours, theirs = rounding(coarse), rounding(fine)
    if ours is None or (theirs is not None and theirs.bits <= ours.bits):
        return False
    if ours.group == WHOLE:
        return _to_nearest_level(fine.ravel(), coarse.ravel())
    parts = [np.ascontiguousarray(one if ours.axis == 0 else one.T) for one in (fine, coarse)]
    if ours.group:
        parts = [one.reshape(-1, ours.group) for one in parts]
    return _to_nearest_step(parts[0].astype(np.float64), parts[1].astype(np.float64), ours.bits)


def _to_nearest_step(fine: np.ndarray[Any, Any], coarse: np.ndarray[Any, Any], bits: int) -> bool:
    """Groups are rows. The step is that of the grid that the group's values are nearest to."""
    low, high = coarse.min(axis=1, keepdims=True), coarse.max(axis=1, keepdims=True)
    peak, half = np.abs(coarse).max(axis=1, keepdims=True), 2 ** (bits - 1)
    kept = ((high > low) & (peak > 0))[:, 0]
    fine, coarse, low, high, peak = (one[kept] for one in (fine, coarse, low, high, peak))
    if not len(fine):
        return False
    steps = [peak / (half - 1), peak / half, (high - low) / (2**bits - 1)]
    starts = [0 * low, 0 * low, low]
    scaled = [(coarse - start) / step for step, start in zip(steps, starts, strict=True)]
    off = np.stack([np.square(one - np.rint(one)).mean(axis=1) for one in scaled])
    step = np.take_along_axis(np.stack(steps), off.argmin(axis=0)[None, :, None], axis=0)[0]
    error = (fine - coarse) / step
    spread = float(np.sqrt(np.mean(np.square(error))))
    return float(np.mean(np.abs(error) > 0.52)) <= _MOST_OFF and _UNIFORM[0] <= spread <= _UNIFORM[1]


def _to_nearest_level(fine: Floats, coarse: Floats) -> bool:
    """A code book for the whole matrix: each value went to its nearest level, from anywhere within its reach."""
    levels = np.unique(coarse).astype(np.float64)
    if len(levels) < 3:
        return False
    inside = (fine > levels[0]) & (fine < levels[-1])
    place = np.clip(np.searchsorted(levels, fine[inside]), 1, len(levels) - 1)
    below, above = levels[place - 1], levels[place]
    nearest = np.where(fine[inside] - below <= above - fine[inside], below, above)
    gap = (above - below) / 2
    reach = np.abs(fine[inside] - coarse[inside]) / gap
    fits = np.abs(nearest - coarse[inside]) <= 1e-3 * gap
    return float(np.mean(fits)) >= 1 - _MOST_OFF and 0.35 <= float(np.mean(reach)) <= 0.65


def _bfloat16(values: Floats) -> Floats:
    """Rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.asarray(rounded.astype(np.uint32).view(np.float32))
