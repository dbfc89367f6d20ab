"""Arrays that batches are built from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

# Batches are padded to a multiple of this many positions: a compiled kernel then sees few different shapes.
LENGTH_MULTIPLE = 8


def padded_length(length: int) -> int:
    """The length to which a batch is padded whose longest row has `length` positions."""
    return max(1, -(-length // LENGTH_MULTIPLE)) * LENGTH_MULTIPLE


def stack(rows: Sequence[npt.NDArray[np.integer]], fill: int, length: int | None = None) -> Tensor:
    """`rows` as one (B, T) int64 tensor, `fill` on the right of each; T is `length`, or fits the longest row."""
    width = padded_length(max(map(len, rows))) if length is None else length
    out: Int64s = np.full((len(rows), width), fill, dtype=np.int64)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return from_numpy(out)


def real_positions(rows: Sequence[npt.NDArray[np.integer]], length: int) -> Tensor:
    """(B, `length`) bool, True where `stack` puts a row's own values and not the fill."""
    lengths = np.array([len(row) for row in rows])
    return from_numpy(np.arange(length)[None, :] < lengths[:, None])


def bytes_per_token(text: str, offsets: Sequence[tuple[int, int]]) -> Int32s:
    """How many UTF-8 bytes of `text` each token spells, (n,); they add up to the bytes of the whole text.

    `offsets` are the characters [start, end) of each token, in order. What lies between two tokens (blanks) counts
    for the second, what follows the last counts for the last; of tokens that share a character the first has it.
    """
    if not offsets:
        return np.zeros(0, dtype=np.int32)
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (code_points >= 0x80).astype(np.int64) + (code_points >= 0x800) + (code_points >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(widths)])
    ends = np.maximum.accumulate(np.array([end for _, end in offsets]))
    ends[-1] = len(text)
    return np.diff(bytes_before[ends], prepend=0).astype(np.int32)
