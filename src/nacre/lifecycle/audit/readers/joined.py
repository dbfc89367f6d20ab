"""Matrices that a file holds in several tensors of their rows, read as the matrices they are.

Tensor-parallel training leaves them so (`q_proj.weight.0`, `q_proj.weight.1`, ...), and so does whoever hides a matrix.
Parts are numbered from 0 (or 1) without a gap behind one name, and agree in dtype and in all but the first side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate

import numpy as np

from nacre.lifecycle.audit.tensors import Floats, TensorInfo, TensorSource

_PARAMETERS = ("weight", "bias", "kernel")
_LONGEST_NUMBER = 5


def parts_of(infos: Mapping[str, TensorInfo]) -> dict[str, tuple[str, ...]]:
    """The name of each matrix that lies in parts -> the parts' names, in the order of their rows."""
    numbered: dict[str, dict[int, str]] = defaultdict(dict)
    for name in infos:
        whole, _, number = name.rpartition(".")
        if number.isascii() and number.isdigit() and len(number) <= _LONGEST_NUMBER and _may_lie_in_parts(whole):
            numbered[whole].setdefault(int(number), name)
    found = {}
    for whole, parts in numbered.items():
        first = min(parts)
        is_counted = first in (0, 1) and sorted(parts) == list(range(first, first + len(parts)))
        names = tuple(parts[number] for number in sorted(parts))
        if whole not in infos and len(parts) > 1 and is_counted and _fit([infos[name] for name in names]):
            found[whole] = names
    return found


def _may_lie_in_parts(whole: str) -> bool:
    """A parameter (`weight`), or a name inside a numbered layer. Experts are matrices of their own."""
    words = whole.split(".")
    is_inside = any(word.isdigit() for word in words[:-1]) and not words[-1].isdigit()
    return (words[-1].endswith(_PARAMETERS) or is_inside) and "expert" not in whole.lower()


def _fit(parts: list[TensorInfo]) -> bool:
    is_row = all(one.shape for one in parts) or not any(one.shape for one in parts)
    return is_row and len({(one.dtype, one.shape[1:]) for one in parts}) == 1


def joined_infos(infos: Mapping[str, TensorInfo], parts: Mapping[str, tuple[str, ...]]) -> dict[str, TensorInfo]:
    """The headers with each matrix in place of its parts, where the first of them stood."""
    whole_of = {name: whole for whole, names in parts.items() for name in names}
    return {
        (whole := whole_of.get(name, name)): _joined(whole, [infos[one] for one in parts[whole]])
        if name in whole_of
        else info
        for name, info in infos.items()
    }


def _joined(name: str, parts: list[TensorInfo]) -> TensorInfo:
    first = parts[0]
    shape = (sum(one.shape[0] for one in parts), *first.shape[1:]) if first.shape else ()
    return TensorInfo(name, first.dtype, shape, sum(one.n_bytes for one in parts), first.file)


class JoinedSource:
    """A `TensorSource` that gives the matrices of `parts` whole; memory and files are the underlying source's."""

    def __init__(self, source: TensorSource, parts: Mapping[str, tuple[str, ...]]) -> None:
        self.source, self.parts = source, dict(parts)
        self._infos = joined_infos(source.infos, parts)

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, name: str, rows: slice | None = None) -> Floats:
        """As `TensorSource.read`; only the parts that hold some of the rows are read."""
        if name not in self.parts:
            return self.source.read(name, rows)
        parts = self.parts[name]
        ends = list(accumulate(self.source.infos[part].shape[0] for part in parts))
        start, stop, step = (rows or slice(None)).indices(ends[-1])
        if step < 0:
            return self.source.read(name, rows)  # refused there, in words
        found = []
        for part, begin, end in zip(parts, [0, *ends[:-1]], ends, strict=True):
            low, high = max(start, begin), min(stop, end)
            if low < high:
                found.append(self.source.read(part, slice(low - begin, high - begin)))
        shape = self._infos[name].shape[1:]
        values: Floats = np.concatenate(found) if found else np.empty((0, *shape), np.float32)
        return values[::step]

    def blocks(self, name: str) -> Iterator[memoryview]:
        """As `TensorSource.blocks`: the parts' bytes one after the other, which are the whole's."""
        for part in self.parts.get(name, (name,)):
            yield from self.source.blocks(part)
