"""What several known references make up together of one subject: the shares of a merge, and whether it is one.

Every matrix of the subject is regressed on the same matrices of the references, all in one basis, with shares that
are not negative (Lawson and Hanson 1974, chapter 23). Either one reference is taken as the base and the others'
differences from it are the regressors (task vectors, Ilharco et al. 2023), or the weights themselves are: then shares
need not sum to 1, as along a great circle. Which of these explains most is chosen; where several explain all, they
give the same shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import stdtrit

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.weights.align import Aligned, Alignment, aligned
from nacre.lifecycle.audit.weights.side import Settings, Side

Doubles = NDArray[np.float64]
MOST = 6  # references regressed on; shares of more are not told apart by a few dozen matrices
EXPLAINED = 0.9  # of the subject's distance from its nearest reference, what a merge must explain
LEAST = 0.03  # a share whose interval lies below is none
_TWIN = 0.05  # of the largest distance between references: two closer ones are one reference
_TIE = 1e-3  # explained more by less than this is not explained better
_RESCALED = ("up", "down")  # roles that a rotated alignment rescales row by row


class Known(NamedTuple):
    """A reference that the subject may be made of: both sides with the tokens that they share, and which layers of
    theirs lie on each other."""

    name: str
    reference: Side
    subject: Side
    over: Alignment


class Matrix(NamedTuple):
    """One matrix of the subject (first) and of the K references, as vectors (K + 1, n)."""

    layer: int | None
    role: str
    vectors: Doubles


class Row(NamedTuple):
    """One matrix: products (K + 1, K + 1) of the subject's vector (first) and the K references'."""

    layer: int | None
    role: str
    products: Doubles

    @classmethod
    def of(cls, one: Matrix) -> Row:
        """The products of a matrix's vectors."""
        return cls(one.layer, one.role, one.vectors @ one.vectors.T)


@dataclass(frozen=True)
class Share:
    """One reference's part, with a 95 % interval from the spread over matrices (None with fewer than three)."""

    reference: str
    share: float
    low: float | None
    high: float | None
    by_layer: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Mixture:
    """`shares` in the order of the references. `base`: the reference whose share is what the others leave, or None
    where weights themselves were regressed; `total` what the shares sum to (without base).

    `explained`: R^2, of the subject's squared distance from its nearest reference. `is_merge`: it is at least
    `EXPLAINED`, and two shares at least are above `LEAST`. `entrywise`: filled by `entrywise.py` where single entries
    were dropped. `nearest`: the reference the subject lies closest to.
    """

    shares: tuple[Share, ...]
    base: str | None
    total: float
    explained: float
    is_merge: bool
    nearest: str
    matrices: int
    left_out: tuple[str, ...] = ()
    way: str = "linear"
    entrywise: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def parents(self) -> tuple[Share, ...]:
        """Those with a share that is not nothing."""
        return tuple(one for one in self.shares if is_there(one))


def is_there(one: Share) -> bool:
    """Whether a share is more than nothing: its interval, or without one the share itself, lies above `LEAST`."""
    return (one.share if one.low is None else one.low) > LEAST


def matrices(known: Sequence[Known], settings: Settings, *, folded: bool = False) -> Iterator[Matrix]:
    """The matrices that all references and the subject hold, one at a time; `folded` with the norms' gains in them.

    In another basis only those that no alignment rescales. Raises CheckpointError where the references hold different
    matrices.
    """
    sources = [aligned(one.reference, one.subject, one.over, settings) for one in known]
    for group in zip(*sources, strict=True):
        first = group[0]
        if any((one.layer, one.role) != (first.layer, first.role) for one in group):
            raise CheckpointError("the references hold different matrices", remedy="give references of one shape")
        if any(one.over.rotation is not None for one in known) and first.role.partition(".")[0] in _RESCALED:
            continue
        yield Matrix(first.layer, first.role, stacked(group, folded=folded))


def stacked(group: Sequence[Aligned], *, folded: bool) -> Doubles:
    """(K + 1, n) the subject's matrix and the references', as vectors."""
    first = group[0]
    found = [first.b, *(one.a for one in group)] if folded else [first.stored_b, *(one.stored_a for one in group)]
    return np.stack([one.ravel().astype(np.float64) for one in found])


def distinct(found: Sequence[Row], names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Places of the references to regress on: the nearest `MOST`, of those that are all but one the first; and the
    names left out."""
    total = np.sum([one.products for one in found], axis=0)
    far = _distances(total)
    order = sorted(range(1, len(total)), key=lambda one: far[0, one])
    largest = max((far[i, j] for i in order for j in order), default=0.0)
    kept: list[int] = []
    for place in order:
        if len(kept) < MOST and all(far[place, one] > _TWIN**2 * largest for one in kept):
            kept.append(place)
    kept.sort()
    return [one - 1 for one in kept], [names[one - 1] for one in order if one not in kept]


def _distances(products: Doubles) -> Doubles:
    """Squared distances between all the vectors that the products are of."""
    own = np.diag(products)
    return np.maximum(own[:, None] + own[None, :] - 2 * products, 0)


def solve(found: Sequence[Row], names: Sequence[str]) -> Mixture | None:
    """The mixture of the references that explains most; None where fewer than two differ anywhere."""
    places, left_out = distinct(found, names)
    if len(places) < 2:
        return None
    chosen = [0, *(one + 1 for one in places)]
    kept = [Row(one.layer, one.role, one.products[np.ix_(chosen, chosen)]) for one in found]
    kept = [one for one in kept if _tells(one.products)]
    if not kept:
        return None
    named = [names[one] for one in places]
    total = np.sum([one.products for one in kept], axis=0)
    nearest = int(np.argmin(_distances(total)[0, 1:]))
    bases: list[int | None] = [*range(len(named)), None]
    best, explained, table = None, -math.inf, np.zeros((0, 0))
    for base in bases:
        shares, left = _regressed(kept, base)
        part = 1 - left / max(float(_distances(total)[0, 1 + nearest]), 1e-300)
        if part > explained + _TIE:
            best, explained, table = base, part, shares
    total_share = float(np.mean(table.sum(axis=1) - (0 if best is None else table[:, best])))
    if best is None:
        table = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
    found_shares = tuple(_summed(name, table[:, one], kept) for one, name in enumerate(named))
    is_merge = explained >= EXPLAINED and sum(is_there(one) for one in found_shares) >= 2
    return Mixture(found_shares, None if best is None else named[best], total_share,
                   float(explained), is_merge, named[nearest], len(kept), tuple(left_out))  # fmt: skip


def _tells(products: Doubles) -> bool:
    """Whether the references differ in a matrix by more than rounding."""
    far = _distances(products)[1:, 1:]
    apart = far[~np.eye(len(far), dtype=bool)]
    return bool(apart.min() > 1e-10 * products[0, 0] and products[0, 0] > 0)


def _regressed(found: Sequence[Row], base: int | None) -> tuple[Doubles, float]:
    """(matrices, K) shares, the base's what the others leave; and the squares that are left over all matrices."""
    shares, left = [], 0.0
    for one in found:
        moved = _moved(one.products, base)
        size = len(moved) - 1
        free = [place for place in range(size) if place != base]
        part = _nnls(moved[1:, 1:][np.ix_(free, free)], moved[1:, 0][free])
        full = np.zeros(size)
        full[free] = part
        minus = np.array([1.0, *-full])
        left += float(minus @ moved @ minus)
        if base is not None:
            full[base] = 1 - part.sum()
        shares.append(full)
    return np.stack(shares), left


def _moved(products: Doubles, base: int | None) -> Doubles:
    """Products of what is left of every vector when the base's is taken off."""
    if base is None:
        return products
    minus = np.eye(len(products))
    minus[:, 1 + base] -= 1
    return np.asarray(minus @ products @ minus.T)


def _nnls(square: Doubles, right: Doubles) -> Doubles:
    """Non-negative least squares from the normal equations."""
    values, vectors = np.linalg.eigh(square)
    root = np.sqrt(np.maximum(values, 1e-14 * max(float(values[-1]), 1e-300)))
    return np.asarray(nnls(root[:, None] * vectors.T, (vectors.T @ right) / root)[0])


def _summed(name: str, shares: Doubles, found: Sequence[Row]) -> Share:
    layers = sorted({one.layer for one in found if one.layer is not None})
    by_layer = []
    for layer in layers:
        mean, low, high = interval([share for share, one in zip(shares, found, strict=True) if one.layer == layer])
        by_layer.append({"layer": layer, "share": mean, "low": low, "high": high})
    return Share(name, *interval(shares.tolist()), tuple(by_layer))


def interval(values: Iterable[float]) -> tuple[float, float | None, float | None]:
    """The mean and its 95 % interval (Student's t); no interval with fewer than three values."""
    found = np.asarray(list(values), np.float64)
    mean = float(found.mean())
    if len(found) < 3:
        return mean, None, None
    half = float(stdtrit(len(found) - 1, 0.975) * found.std(ddof=1) / math.sqrt(len(found)))
    return mean, mean - half, mean + half
