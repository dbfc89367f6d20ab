"""Traces that storage leaves in numbers: levels of a rounding, zeros of a pruning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nacre.lifecycle.audit.tensors import Floats

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (0, 128, 64, 32)  # values along a row that share a step; 0: the whole row
_GROUPS_READ = 64  # groups looked at, evenly over the matrix
_OFF_GRID = 0.12  # root mean square distance to the grid in steps; 0.289 of numbers that know no grid


WHOLE = -1  # a group: the whole matrix


class Rounding(NamedTuple):
    """`bits` per value, `group` values that share a step (0: a row, -1: the matrix), `axis` 1: columns are the rows."""

    bits: int
    group: int
    axis: int


def rounding(values: Floats) -> Rounding | None:
    """The coarsest grid that nearly all of `values` (R, C) lie on, or None: a few different numbers, or equal steps."""
    stepped, few = _stepped(values), _few_values(values)
    if stepped is not None and (few is None or stepped.bits <= few.bits):
        return stepped
    return few


def _few_values(values: Floats) -> Rounding | None:
    """A code book of at most 8 bits for the whole matrix, as 8-bit floats with one scale have."""
    magnitudes = np.abs(values[values != 0])
    few = len(np.unique(magnitudes[:: max(1, magnitudes.size // 65_536)]))
    if magnitudes.size >= 2048 and few <= 128:
        return Rounding(max(2, int(np.ceil(np.log2(2 * few)))), WHOLE, 0)
    return None


def _stepped(values: Floats) -> Rounding | None:
    """Equal steps along rows, columns or groups of a row."""
    for axis in (0, 1):
        rows = values if axis == 0 else np.ascontiguousarray(values.T)
        for group in GROUPS:
            if group and (rows.shape[1] % group or rows.shape[1] <= group):
                continue
            parts = rows.reshape(-1, group) if group else rows
            bits = _bits(parts[:: max(1, len(parts) // _GROUPS_READ)])
            if bits:
                return Rounding(bits, group, axis)
    return None


def _bits(groups: Floats) -> int | None:
    """The fewest bits whose grid holds nine of ten groups; steps are symmetric or go from lowest to highest."""
    groups = groups[(np.count_nonzero(groups, axis=1) >= 8) & (np.ptp(groups, axis=1) > 0)].astype(np.float64)
    if len(groups) < 4 or groups.shape[1] < 16:
        return None
    counted = groups != 0
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    peak = np.abs(groups).max(axis=1, keepdims=True)
    for bits in BITS:
        half = 2 ** (bits - 1)
        grids = (groups * (half - 1) / peak, groups * half / peak, (groups - low) * (2**bits - 1) / (high - low))
        if any(_on_grid(grid, counted) for grid in grids):
            return bits
    return None


def _on_grid(scaled: Floats, counted: NDArray[np.bool_]) -> bool:
    """Whether the `counted` values of nearly all groups are whole numbers; zeros are on every grid and say nothing."""
    off = np.where(counted, np.square(scaled - np.rint(scaled)), 0).sum(axis=1) / counted.sum(axis=1)
    return float(np.mean(np.sqrt(off) < _OFF_GRID)) >= 0.9


def is_half(values: Floats) -> bool:
    """Whether all values are those of a 16-bit type."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    if not np.any(bits & 0xFFFF):
        return True
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))


def zero_share(values: Floats) -> float:
    return float(np.mean(values == 0))


def pattern(values: Floats) -> str | None:
    """`N:M`: of every M values along a row at least M - N are zero, and not merely because nearly all are."""
    zeros = zero_share(values)
    for n, m in ((1, 4), (2, 4), (4, 8)):
        if values.shape[1] % m or zeros < 0.9 * (1 - n / m) or zeros > 1 - n / m + 0.05:
            continue
        kept = np.count_nonzero(values.reshape(-1, m), axis=1)
        if np.mean(kept <= n) > 0.999:
            return f"{n}:{m}"
    return None
