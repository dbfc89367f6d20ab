"""The one source of tensors: every format says where its tensors' bytes lie, and this reads them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.readers.dtypes import BITS, Bytes, decoder
from nacre.lifecycle.audit.readers.files import CHUNK, chunks, damaged, fill, opened, shown
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats, TensorInfo

MOST_READ = 1 << 31  # float32 values that one call gives at most (8 GiB): more is asked for by rows
_WIDEST_SPREAD = 64  # bytes read for one value of a tensor that is a part of a larger one
_READ_AT_ONCE = 4 * CHUNK


@dataclass(frozen=True)
class Extent:
    """A tensor's place: `n_bytes` of `info` from `offset` in `path`.

    `strides` (in values) belong to a tensor that does not lie in the order of its rows. `decode` turns bytes into
    float32 where the dtype is no plain one; it gets whole rows.
    """

    info: TensorInfo
    path: Path
    offset: int
    strides: tuple[int, ...] | None = None
    decode: Callable[[Bytes], Floats] | None = None


class RangeSource:
    """A `TensorSource` over extents; safe to use from several threads.

    Files are opened for each call and read by range. Memory: the values asked for, and a few MiB. A file that changes
    after this source was made is an error at the next reading, so that no verdict mixes two contents.
    """

    def __init__(self, extents: Mapping[str, Extent]) -> None:
        self.extents = dict(extents)
        self._infos = {name: extent.info for name, extent in self.extents.items()}
        self._stamps = {path: _stamp(path) for path in {extent.path for extent in self.extents.values()}}

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, name: str, rows: slice | None = None) -> Floats:
        """As `TensorSource.read`; a slice reads only its rows' bytes."""
        extent = self._extent(name)
        shape = extent.info.shape
        if rows is None:
            return self._unchanged_values(extent, 0, shape[0] if shape else 1).reshape(shape)
        if not shape:
            raise CheckpointError(
                say("{name} is a single value and has no rows", name=shown(name)), remedy="read it as a whole"
            )
        start, stop, step = rows.indices(shape[0])
        if step < 0:
            raise CheckpointError(f"{shown(name)}: rows are read forwards", remedy="reverse what is read")
        values = self._unchanged_values(extent, start, max(start, stop))
        return values.reshape(max(0, stop - start), *shape[1:])[::step]

    def blocks(self, name: str) -> Iterator[memoryview]:
        """As `TensorSource.blocks`, each block valid until the next; what lies in another order comes by rows."""
        extent = self._extent(name)
        if extent.strides is None:
            yield from chunks(extent.path, extent.offset, extent.info.n_bytes)
        else:
            items = np.ascontiguousarray(self._strided(extent, 0, extent.info.shape[0]))
            whole = items.reshape(-1).view(np.uint8).data
            for start in range(0, len(whole), CHUNK):
                yield whole[start : start + CHUNK]
        self._check_unchanged(extent.path)

    def _extent(self, name: str) -> Extent:
        if name not in self.extents:
            raise CheckpointError(f"there is no tensor {shown(name)!r}", remedy="name one of the file's tensors")
        return self.extents[name]

    def _unchanged_values(self, extent: Extent, start: int, stop: int) -> Floats:
        values = self._values(extent, start, stop)
        self._check_unchanged(extent.path)
        return values

    def _check_unchanged(self, path: Path) -> None:
        if _stamp(path) != self._stamps[path]:
            raise damaged(path, "changed while it was being read", "stop what writes it, then run again")

    def _values(self, extent: Extent, start: int, stop: int) -> Floats:
        info = extent.info
        n_rows = info.shape[0] if info.shape else 1
        row_values = math.prod(info.shape[1:])
        n_values = (stop - start) * row_values
        if n_values > MOST_READ:
            what = say("{name}: {n:,} values at once are too many", name=shown(info.name), n=n_values)
            raise CheckpointError(what, remedy="read it by rows")
        decode = extent.decode or decoder(info.dtype)
        if decode is None:
            what = say("{name}: values of {dtype} cannot be read", name=shown(info.name), dtype=shown(info.dtype))
            raise CheckpointError(what, remedy="convert them to F32 or BF16")
        if n_values == 0:
            return np.empty(0, np.float32)
        if extent.strides is not None:
            return decode(np.ascontiguousarray(self._rows(extent, start, stop)).reshape(-1).view(np.uint8))
        row_bytes = info.n_bytes // n_rows
        return _decoded(extent, decode, start * row_bytes, row_bytes, (stop - start, row_values))

    def _rows(self, extent: Extent, start: int, stop: int) -> NDArray[np.void]:
        """Rows start..stop of a tensor in another order; where they lie all over it, out of the whole."""
        lengths, strides = extent.info.shape, extent.strides or ()
        if (lengths[0] - 1) * strides[0] < sum(
            (length - 1) * stride for length, stride in zip(lengths[1:], strides[1:], strict=True)
        ):
            return self._strided(extent, 0, lengths[0])[start:stop]
        return self._strided(extent, start, stop)

    def _strided(self, extent: Extent, start: int, stop: int) -> NDArray[np.void]:
        """Values of rows start..stop as raw items, in the order of the tensor's shape."""
        info, strides = extent.info, extent.strides or ()
        shape, size = (stop - start, *info.shape[1:]), BITS[info.dtype] // 8
        if math.prod(info.shape) > MOST_READ:
            what = say("{name} is too large for its order in the file", name=shown(info.name))
            raise CheckpointError(what, remedy="save it by rows")
        if 0 in shape:
            return np.empty(shape, f"V{size}")
        span = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if span > min(MOST_READ, _WIDEST_SPREAD * math.prod(shape)) or math.prod(shape) > MOST_READ:
            what = say("{name}: its values lie too far apart in the file", name=shown(info.name))
            raise CheckpointError(what, remedy="save it in the order of its rows")
        raw = bytearray(span * size)
        with opened(extent.path) as descriptor:
            fill(descriptor, extent.path, extent.offset + start * strides[0] * size, memoryview(raw))
        items = np.frombuffer(raw, f"V{size}")
        steps = tuple(stride * size for stride in strides)
        return np.lib.stride_tricks.as_strided(items, shape, steps, writeable=False)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file's content; None where it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _decoded(
    extent: Extent, decode: Callable[[Bytes], Floats], offset: int, row_bytes: int, shape: tuple[int, int]
) -> Floats:
    """`shape` (rows, values of a row) decoded piece by piece, so that the raw bytes never lie beside all values."""
    n_rows, row_values = shape
    out = np.empty(n_rows * row_values, np.float32)
    whole = extent.decode is not None  # a block format is cut between rows, plain values anywhere
    n_bytes, n_values = n_rows * row_bytes, out.size
    unit, unit_values = (row_bytes, row_values) if whole else (n_bytes // n_values, 1)
    per_piece = max(1, _READ_AT_ONCE // unit)
    buffer = np.empty(min(per_piece * unit, n_bytes), np.uint8)
    with opened(extent.path) as descriptor:
        for first in range(0, n_bytes // unit, per_piece):
            count = min(per_piece, n_bytes // unit - first)
            piece = buffer[: count * unit]
            fill(descriptor, extent.path, extent.offset + offset + first * unit, piece.data)
            out[first * unit_values : (first + count) * unit_values] = decode(piece).reshape(-1)
    return out
