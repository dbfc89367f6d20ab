"""A source of tensors that counts the bytes it was asked for: what an audit read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nacre.lifecycle.audit.tensors import Floats, TensorInfo, TensorSource


class CountingSource:
    """`source`, with `bytes_read` so far. Rows count by their share of the tensor's bytes."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self.bytes_read = 0

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._source.infos

    def read(self, name: str, rows: slice | None = None) -> Floats:
        """As `TensorSource.read`."""
        values = self._source.read(name, rows)
        info = self._source.infos[name]
        if rows is None or not info.shape or not info.shape[0]:
            self.bytes_read += info.n_bytes
        else:
            start, stop, _ = rows.indices(info.shape[0])
            self.bytes_read += info.n_bytes * max(0, stop - start) // info.shape[0]
        return values

    def blocks(self, name: str) -> Iterator[memoryview]:
        """As `TensorSource.blocks`."""
        for block in self._source.blocks(name):
            self.bytes_read += len(block)
            yield block
