"""Tensors of foreign files as the audit reads them: headers first, then values by range, never a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a header. `dtype` is the file's own word (`BF16`, `F32`, `Q4_K`); `file` is its shard's name.

    `shape` is in the order of rows first, as torch prints it, whatever the file's own order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    file: str


class TensorSource(Protocol):
    """Where tensors are read from. Reading holds one tensor (or its rows) in memory at a time."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]: ...

    def read(self, name: str, rows: slice | None = None) -> Floats:
        """Values in float32, dequantised; `rows` of the first axis only, which stays an axis.

        Raises CheckpointError where the bytes are missing or damaged.
        """
        ...

    def blocks(self, name: str) -> Iterator[memoryview]:
        """The tensor's bytes as they lie in the file, in order, a few MiB at a time."""
        ...
