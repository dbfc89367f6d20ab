"""PyTorch checkpoints (`.bin`, `.pt`, `.pth`): tensors in place in the zip of today, or in the stream of before 1.6.

Neither torch nor pickle is used: the table of tensors is read by `torch_pickle`, their bytes by range, so that memory
stays bounded and no code of the file is run. Format: torch/serialization.py, `_save` and `_legacy_save`.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nacre.lifecycle.audit.readers.dtypes import BITS
from nacre.lifecycle.audit.readers.files import damaged, opened, read_range, shown, size_of
from nacre.lifecycle.audit.readers.ranges import Extent
from nacre.lifecycle.audit.readers.torch_pickle import CONVERT, Storage, Stored, load, state_dict
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import TensorInfo

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
LARGEST_TABLE = 32 << 20  # bytes of the pickle, and of the zip's own directory
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ZIP = b"PK\x03\x04"
Places = Mapping[str, tuple[int, int]]  # storage -> (offset, bytes)


def read_header(path: Path, notes: list[str]) -> dict[str, Extent]:
    """Where the tensors of a file lie. Raises CheckpointError for damage and for anything but a table of tensors."""
    with opened(path) as descriptor:
        start = os.pread(descriptor, 4, 0)
    if start == _ZIP:
        table, places = _zip(path)
    elif start[:1] == b"\x80":
        table, places = _legacy(path)
    else:
        raise damaged(path, "is no PyTorch checkpoint", CONVERT)
    tensors = state_dict(table, path, notes)
    return {name: _extent(path, name, tensor, places) for name, tensor in tensors.items()}


def _extent(path: Path, name: str, tensor: Stored, places: Places) -> Extent:
    if tensor.storage.key not in places:
        raise damaged(path, say("the bytes of the tensor {name} are missing", name=repr(shown(name))))
    begin, held = places[tensor.storage.key]
    size, count = BITS[tensor.dtype] // 8, math.prod(tensor.shape)
    pairs = list(zip(tensor.shape, tensor.strides, strict=True))
    span = 1 + sum((length - 1) * stride for length, stride in pairs) if count else 0
    if (tensor.offset + span) * size > held or count * size > held or len(pairs) > 8:
        what = say(
            "the tensor {name} of shape {shape} does not fit its {n:,} bytes",
            name=repr(shown(name)),
            shape=str(tensor.shape),
            n=held,
        )
        raise damaged(path, what)
    info = TensorInfo(name, tensor.dtype, tensor.shape, count * size, path.name)
    strides = None if count == 0 or _is_contiguous(pairs) else tensor.strides
    return Extent(info, path, begin + tensor.offset * size, strides)


def _is_contiguous(pairs: list[tuple[int, int]]) -> bool:
    expected = 1
    for length, stride in reversed(pairs):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


class _Bounded(io.FileIO):
    """A file that refuses to be read in large pieces, whatever lengths it claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return super().read(LARGEST_TABLE)
        if size > LARGEST_TABLE:
            raise zipfile.BadZipFile(f"its directory claims {size:,} bytes")
        return super().read(size)


def _zip(path: Path) -> tuple[Any, Places]:
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, OverflowError, NotImplementedError, OSError) as error:
        raise damaged(path, say("its zip cannot be read: {why}", why=shown(str(error)))) from error
    tables = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(tables) != 1 or len({entry.filename for entry in entries}) < len(entries):
        raise damaged(path, "its zip is not that of a PyTorch checkpoint", CONVERT)
    prefix = tables[0].filename.removesuffix("data.pkl")
    size = size_of(path)
    with opened(path) as descriptor:
        wanted = [entry for entry in entries if entry.filename.startswith(prefix)]
        found = {entry.filename.removeprefix(prefix): _place(descriptor, path, entry, size) for entry in wanted}
        if "byteorder" in found and _bytes(descriptor, path, found["byteorder"]) != b"little":
            raise damaged(path, "was written on a machine of the other byte order", CONVERT)
        table = _bytes(descriptor, path, found["data.pkl"])
    places = {name.removeprefix("data/"): place for name, place in found.items() if name.startswith("data/")}
    return load(io.BytesIO(table), path), places


def _place(descriptor: int, path: Path, entry: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """Where an entry's bytes lie, which the local header tells. Compressed entries cannot be read by range."""
    name = shown(entry.filename)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
        raise damaged(path, say("its part {name} is compressed or encrypted", name=name), CONVERT)
    if not 0 <= entry.header_offset <= size - 30:
        raise damaged(path, say("its part {name} lies outside the file", name=name))
    header = read_range(descriptor, path, entry.header_offset, 30)
    offset = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if header[:4] != _ZIP or offset + entry.file_size > size:
        raise damaged(path, say("its part {name} lies outside the file", name=name))
    return offset, entry.file_size


def _bytes(descriptor: int, path: Path, place: tuple[int, int]) -> bytes:
    if place[1] > LARGEST_TABLE:
        raise damaged(path, say("its table of tensors claims {n:,} bytes", n=place[1]), CONVERT)
    return read_range(descriptor, path, *place)


def _legacy(path: Path) -> tuple[Any, Places]:
    """Five pickles (magic, protocol, system, table, keys), then each storage: its length and its values."""
    size = size_of(path)
    with opened(path) as descriptor:
        stream = io.BytesIO(read_range(descriptor, path, 0, min(size, LARGEST_TABLE)))
        magic, protocol = load(stream, path), load(stream, path)
        if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
            raise damaged(path, "is a pickle, and not one of a PyTorch checkpoint", CONVERT)
        system, table, keys = load(stream, path), load(stream, path), load(stream, path)
        if not isinstance(system, dict) or system.get("little_endian") is not True or not isinstance(keys, list):
            raise damaged(path, "is a PyTorch checkpoint of an unknown kind", CONVERT)
        kinds = {tensor.storage.key: tensor.storage for tensor in _tensors(table)}
        places: dict[str, tuple[int, int]] = {}
        at = stream.tell()
        for key in keys:
            at = _next_storage(descriptor, path, (at, size), kinds.get(str(key)), places)
    return table, places


def _next_storage(
    descriptor: int, path: Path, at_of: tuple[int, int], storage: Storage | None, places: dict[str, tuple[int, int]]
) -> int:
    """Enters where a storage lies; the byte after it."""
    at, size = at_of
    if storage is None:
        raise damaged(path, say("holds bytes at {at:,} that belong to no tensor", at=at), CONVERT)
    held = storage.n_values * BITS[storage.dtype] // 8
    if at + 8 + held > size or int.from_bytes(read_range(descriptor, path, at, 8), "little") != storage.n_values:
        raise damaged(path, say("the bytes of a storage at {at:,} are missing", at=at))
    places[storage.key] = (at + 8, held)
    return at + 8 + held


def _tensors(value: Any) -> list[Stored]:
    """Every tensor in nested tables and lists, each container once: their storages follow in the file in any case."""
    out: list[Stored] = []
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if isinstance(item, Stored):
            out.append(item)
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return out
