"""How the weights of two related models differ, matrix by matrix: what a tuning, an adapter, a rounding, a pruning, a
merge or noise leaves behind. Kinds are told from these numbers by `kinds.py`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.lifecycle.audit.weights.align import Aligned, Alignment, aligned
from nacre.lifecycle.audit.weights.levels import is_half, pattern, rounding, zero_share
from nacre.lifecycle.audit.weights.side import Settings, Side

Doubles = NDArray[np.float64]
_ROUNDING, _TURNED = 1e-7, 1e-5  # what float32 leaves of equal weights: as they are, and after a rotation
_ITERATIONS = 4  # of subspace iteration
_SPIKES = 8  # singular directions that training leaves strongest


@dataclass(frozen=True)
class MatrixDelta:
    """One matrix of the reference (a) and the subject (b), D = b - a.

    `relative` |D|/|a|; `along` <a, b>/|a|^2; `kept` how much of a's strongest singular part b holds, `kept_back` the
    same of b's in a, `bulk` of a's other part; `rank` and `energy` of the low-rank part of D, `top` its largest
    singular value over the edge of noise; `kurtosis` (excess) of D, `row_spread` the coefficient of variation of its
    rows' lengths; zeros, N:M pattern, `survivors` (share of b's non-zeros that equal a's), bits and group of b's grid.
    """

    layer: int | None
    role: str
    equal: bool
    relative: float
    along: float
    kept: float
    kept_back: float
    bulk: float
    rank: int
    energy: float
    least_side: int
    top: float
    kurtosis: float
    row_spread: float
    zeros_a: float
    zeros_b: float
    pattern: str | None
    survivors: float
    bits: int | None
    group: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def deltas(a: Side, b: Side, over: Alignment, settings: Settings) -> list[MatrixDelta]:
    """All matrices of the aligned layers, embedding and head. `a` is the reference, `b` the subject."""
    noise = _ROUNDING if over.rotation is None else _TURNED
    return [measure(one, noise) for one in aligned(a, b, over, settings)] if over.fits else []


def measure(pair: Aligned, noise: float = _ROUNDING) -> MatrixDelta:
    """The numbers of one pair of matrices; `noise` is what rounding leaves, in parts of the weights' size."""
    a, b = pair.a.astype(np.float64), pair.b.astype(np.float64)
    difference, size = b - a, float(np.sum(a * a)) or 1.0
    strong, strong_b = _strongest(a), _strongest(b)
    rank, energy, top = low_rank(difference, floor=noise * math.sqrt(size / a.size))
    grid, rows = _new_grid(pair), np.linalg.norm(difference, axis=1)
    nonzero = pair.b != 0
    return MatrixDelta(
        layer=pair.layer, role=pair.role, equal=bool(np.array_equal(pair.a, pair.b)),
        relative=float(np.linalg.norm(difference)) / math.sqrt(size),
        along=float(np.sum(a * b)) / size,
        kept=_held(strong, b), kept_back=_held(strong_b, a), bulk=_held(a - strong, b),
        rank=rank, energy=energy, least_side=min(a.shape), top=top,
        kurtosis=_kurtosis(difference), row_spread=float(np.std(rows) / (np.mean(rows) + 1e-30)),
        zeros_a=zero_share(pair.stored_a), zeros_b=zero_share(pair.stored_b), pattern=pattern(pair.stored_b),
        survivors=float(np.mean(np.abs(difference[nonzero]) <= 4e-3 * np.abs(a[nonzero]))) if nonzero.any() else 0.0,
        bits=grid[0], group=grid[1],
    )  # fmt: skip


def _new_grid(pair: Aligned) -> tuple[int | None, int | None]:
    """Bits and group of the subject's grid where the reference does not lie on the same one."""
    ours, theirs = rounding(pair.stored_b), rounding(pair.stored_a)
    if ours is not None and (theirs is None or theirs.bits > ours.bits):
        return ours.bits, ours.group
    if ours is None and is_half(pair.stored_b) and not is_half(pair.stored_a):
        return 16, None
    return None, None


def _strongest(values: Doubles) -> Doubles:
    """The part of a matrix that lies in its eight strongest left singular directions.

    By subspace iteration on twice as many (Halko et al. 2011, algorithm 4.4): a whole decomposition costs ten times it.
    """
    rows, columns = values.shape
    if min(rows, columns) <= 4 * _SPIKES:
        vectors = np.linalg.eigh(values @ values.T)[1][:, -_SPIKES:]
        return np.asarray(vectors @ (vectors.T @ values))
    basis = values @ np.random.default_rng(0).standard_normal((columns, 2 * _SPIKES))
    for _ in range(_ITERATIONS):
        basis = values @ (values.T @ np.linalg.qr(basis)[0])
    basis = np.linalg.qr(basis)[0]
    inside = basis.T @ values
    left = basis @ np.linalg.eigh(inside @ inside.T)[1][:, -_SPIKES:]
    return np.asarray(left @ (left.T @ values))


def _held(part: Doubles, other: Doubles) -> float:
    return float(np.sum(part * other) / (np.sum(part * part) + 1e-30))


def low_rank(difference: Doubles, floor: float = 0.0) -> tuple[int, float, float]:
    """(r, share of the energy in them, largest over the edge) of singular values above 1.1 times the edge of noise.

    The noise's deviation is told from the lower quartile of the singular values and that of the Marchenko-Pastur law
    (as Gavish and Donoho 2014, section III.E, do from the median), so that a rank of half the side is still told; it is
    at least `floor`, the rounding of float32.
    """
    short, long = sorted(difference.shape)
    square = difference @ difference.T if difference.shape[0] == short else difference.T @ difference
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(square)[::-1], 0))
    if values[0] <= 0:
        return 0, 0.0, 0.0
    sigma = float(np.quantile(values, 0.25)) / math.sqrt(long * _quartile(round(short / long, 4)))
    edge = max(sigma, floor) * (math.sqrt(short) + math.sqrt(long))
    above = values > 1.1 * edge
    return int(above.sum()), float(np.sum(values[above] ** 2) / np.sum(values**2)), float(values[0] / edge)


@cache
def _quartile(beta: float) -> float:
    """The lower quartile of the Marchenko-Pastur law of ratio `beta` (at most 1) and variance 1."""
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    edges = low + (high - low) * np.linspace(0, 1, 4001) ** 2  # close together where a square matrix has its pole
    at = (edges[1:] + edges[:-1]) / 2
    mass = np.sqrt((high - at) * (at - low)) / at * np.diff(edges)
    return float(np.interp(0.25, np.cumsum(mass) / mass.sum(), edges[1:]))


def _kurtosis(values: Doubles) -> float:
    centred = values - values.mean()
    return float(np.mean(centred**4) / (np.mean(centred**2) ** 2 + 1e-300) - 3.0)
