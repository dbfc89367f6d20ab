"""The safetensors format: its header parsed strictly by hand, values left in the file.

Format: eight bytes of header length (little-endian), the header as JSON, the tensors' bytes
(https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.readers.dtypes import BITS
from nacre.lifecycle.audit.readers.files import damaged, opened, read_range, shown
from nacre.lifecycle.audit.readers.ranges import Extent
from nacre.lifecycle.audit.readers.strict_json import parse_object
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import TensorInfo

LONGEST_HEADER = 100_000_000  # as the format's own reader limits it
_MOST_DIMENSIONS = 8
_FIELDS = {"dtype", "shape", "data_offsets"}


def read_header(path: Path, notes: list[str] | None = None) -> dict[str, Extent]:
    """Where the tensors of a file lie. Raises CheckpointError for whatever the format does not allow.

    Bytes that belong to no tensor are allowed by some writers and are told in `notes`.
    """
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size < 8:
            raise damaged(path, say("holds {size} bytes: no safetensors file", size=size))
        length = int.from_bytes(read_range(descriptor, path, 0, 8), "little")
        if length > min(LONGEST_HEADER, size - 8):
            raise damaged(path, say("its header claims {n:,} bytes, the file has {size:,}", n=length, size=size))
        header = parse_object(read_range(descriptor, path, 8, length), path)
    _check_metadata(header.pop("__metadata__", {}), path)
    extents = {name: _extent(path, name, entry, 8 + length, size) for name, entry in header.items()}
    if not extents:
        raise damaged(path, "holds no tensors")
    unused = _check_layout(path, extents, 8 + length, size)
    if unused and notes is not None:
        what = say("{n:,} bytes belong to no tensor", n=unused)
        notes.append(say("{where}: {reason}", where=shown(path.name), reason=what))
    return extents


def _check_metadata(metadata: Any, path: Path) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damaged(path, "its __metadata__ is no table of strings")


def _extent(path: Path, name: str, entry: Any, begin: int, size: int) -> Extent:
    tensor = repr(shown(name))
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise damaged(path, say("the tensor {name} is not described by dtype, shape and data_offsets", name=tensor))
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        unknown = repr(shown(str(dtype)))
        raise damaged(path, say("the tensor {name} has the unknown dtype {dtype}", name=tensor, dtype=unknown))
    if not _are_sizes(shape) or len(shape) > _MOST_DIMENSIONS:
        raise damaged(path, say("the tensor {name} has the shape {shape}", name=tensor, shape=shown(str(shape))))
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1] or begin + offsets[1] > size:
        what = say(
            "the tensor {name} lies at {offsets}, outside the file's {n:,} bytes of values",
            name=tensor,
            offsets=shown(str(offsets)),
            n=size - begin,
        )
        raise damaged(path, what)
    start, stop = offsets
    if math.prod(shape) * BITS[dtype] != (stop - start) * 8:
        what = say(
            "the tensor {name} of {dtype} and shape {shape} does not fill its {n:,} bytes",
            name=tensor,
            dtype=dtype,
            shape=shown(str(shape)),
            n=stop - start,
        )
        raise damaged(path, what)
    info = TensorInfo(name, dtype, tuple(shape), stop - start, path.name)
    return Extent(info, path, begin + start)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 62 for one in value)


def _check_layout(path: Path, extents: dict[str, Extent], begin: int, size: int) -> int:
    """Bytes that no tensor uses. Raises CheckpointError where two tensors share bytes."""
    end, before, unused = begin, "", 0
    for extent in sorted(extents.values(), key=lambda one: (one.offset, one.info.n_bytes)):
        if extent.offset < end and extent.info.n_bytes:
            a, b = repr(shown(before)), repr(shown(extent.info.name))
            raise damaged(path, say("the tensors {a} and {b} share bytes", a=a, b=b))
        unused += max(0, extent.offset - end)
        end, before = max(end, extent.offset + extent.info.n_bytes), extent.info.name
    return unused + size - end


def is_safetensors(path: Path) -> bool:
    """True where the name or the first bytes say so."""
    if path.suffix == ".safetensors":
        return True
    try:
        with opened(path) as descriptor:
            start = os.pread(descriptor, 9, 0)
    except CheckpointError:
        return False
    return len(start) == 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER
