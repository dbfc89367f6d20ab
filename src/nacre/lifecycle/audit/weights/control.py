"""The control: an unrelated model of the reference's shape. Every matrix keeps its values and loses the order of its
rows, each by a draw of its own, so that means, norms, spectra and outliers stay and every correspondence is gone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from nacre.lifecycle.audit.tensors import Floats, TensorInfo, TensorSource
from nacre.lifecycle.audit.weights.side import Side, spread


class ShuffledSource:
    """A source whose tensors have their rows in another order, drawn from `seed` and the tensor's name.

    Stacks of matrices (three axes and more) are shuffled within each matrix. Everything is float32.
    """

    def __init__(self, source: TensorSource, seed: int) -> None:
        self._source, self._seed = source, seed
        self._infos = {name: replace(info, dtype="F32") for name, info in source.infos.items()}

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, name: str, rows: slice | None = None) -> Floats:
        """As `TensorSource.read`. A single row costs a single row; more cost the whole tensor."""
        shape = self._infos[name].shape
        if len(shape) >= 3:
            values = self._source.read(name, rows)
            first = 0 if rows is None else rows.indices(shape[0])[0]
            return np.stack([one[self._order(name, len(one), first + i)] for i, one in enumerate(values)])
        if not shape:
            return self._source.read(name)
        order = self._order(name, shape[0])
        chosen = order if rows is None else order[rows]
        if len(chosen) == 1:
            return self._source.read(name, slice(int(chosen[0]), int(chosen[0]) + 1))
        return np.ascontiguousarray(self._source.read(name)[chosen])

    def blocks(self, name: str) -> Iterator[memoryview]:
        yield np.ascontiguousarray(self.read(name)).data.cast("B")

    def _order(self, name: str, count: int, matrix: int = 0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.random.default_rng([self._seed, zlib.crc32(name.encode()), matrix]).permutation(count)


def control_of(reference: Side, seed: int) -> Side:
    """The control that stands in for `reference`."""
    return replace(reference, source=ShuffledSource(reference.source, seed), cache={})


def thinned(side: Side, layers: int) -> Side:
    """`side` with a few of its layers only: what the control is held against, so that it costs little."""
    kept = {None, *spread(side.depths, layers)}
    views = {key: view for key, view in side.canonical.views.items() if key[0] in kept}
    return replace(side, canonical=replace(side.canonical, views=views), cache={})
