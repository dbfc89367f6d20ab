"""The GGUF format, versions 2 and 3: a header of typed values and tensor places, read within bounds by hand.

Format: ggml's docs/gguf.md. Block formats are decoded by the `gguf` package (extra `audit`); headers, plain dtypes and
hashes need nothing. Dimensions are stored fastest first and are turned to rows first here.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nacre.errors import CheckpointError
from nacre.lazy import require
from nacre.lifecycle.audit.readers.dtypes import Bytes
from nacre.lifecycle.audit.readers.files import damaged, opened, shown
from nacre.lifecycle.audit.readers.ranges import Extent
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import Floats, TensorInfo

MAGIC = b"GGUF"
MOST_TENSORS, MOST_KEYS, MOST_ITEMS = 1_000_000, 100_000, 8_000_000
LONGEST_TEXT, LONGEST_HEADER = 64 << 20, 512 << 20
_MOST_DIMENSIONS = 4
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

# ggml's number of a type -> (its word, values in a block, bytes of a block); ggml/include/ggml.h, enum ggml_type.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}  # fmt: skip

# What a Hugging Face config calls it -> the key after the architecture's name.
_CONFIG = {
    "num_hidden_layers": "block_count", "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon", "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length", "vocab_size": "vocab_size", "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count", "sliding_window": "attention.sliding_window",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """`metadata` holds every key with plain values, arrays as lists; `extents` the tensors by name."""

    version: int
    metadata: dict[str, Any]
    extents: dict[str, Extent]


def read_header(path: Path) -> Header:
    """The header of a file. Raises CheckpointError for whatever the format does not allow."""
    with _cursor(path) as cursor:
        return cursor.header()


@contextmanager
def _cursor(path: Path) -> Iterator[_Cursor]:
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield _Cursor(path, file, size)


def read_extents(path: Path, notes: list[str]) -> dict[str, Extent]:
    """The tensors of a file, as a reader of shards."""
    return read_header(path).extents


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file, as in its `Header`; it is there where tensors are damaged or of an unknown type, too."""
    with _cursor(path) as cursor:
        return cursor.metadata()[1]


def config_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata under the names of a Hugging Face config, where it tells; all but its arrays under `gguf`."""
    family = metadata.get("general.architecture")
    config: dict[str, Any] = {"model_type": family} if isinstance(family, str) else {}
    for name, key in _CONFIG.items():
        value = metadata.get(f"{family}.{key}")
        if value is not None:
            config[name] = value
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list):
        config.setdefault("vocab_size", len(tokens))
    config["gguf"] = {key: value for key, value in metadata.items() if not isinstance(value, list)}
    return config


class _Cursor:
    """Walks a header; every length is checked against the file and the bounds before it is read."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.at = self.n_items = 0

    def header(self) -> Header:
        version, metadata, n_tensors = self.metadata()
        entries = [self.entry() for _ in range(n_tensors)]
        return Header(version, metadata, self.placed(entries, metadata.get("general.alignment", 32)))

    def metadata(self) -> tuple[int, dict[str, Any], int]:
        """Version, metadata, and how many tensors are described after them."""
        if self.take(4) != MAGIC:
            raise damaged(self.path, "does not begin as GGUF does")
        version = self.number("<I")
        if version not in (2, 3):
            raise damaged(self.path, say("is GGUF of version {n}; 2 and 3 are read", n=version), "convert it again")
        n_tensors, n_keys = self.number("<Q"), self.number("<Q")
        if n_tensors > min(MOST_TENSORS, self.size // 24) or n_keys > min(MOST_KEYS, self.size // 13):
            what = say(
                "claims {tensors:,} tensors and {keys:,} keys in {size:,} bytes",
                tensors=n_tensors,
                keys=n_keys,
                size=self.size,
            )
            raise damaged(self.path, what)
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self.text(strict=True)
            if key in metadata:
                raise damaged(self.path, say("the key {name} is given twice", name=repr(shown(key))))
            metadata[key] = self.value(self.number("<I"), 0)
        return version, metadata, n_tensors

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > self.size - self.at or self.at + n_bytes > LONGEST_HEADER:
            what = say("its header claims {n:,} bytes at {at:,} of {size:,}", n=n_bytes, at=self.at, size=self.size)
            raise damaged(self.path, what)
        data = self.file.read(n_bytes)
        if len(data) < n_bytes:
            raise damaged(self.path, say("ends at byte {at:,}, inside its header", at=self.at + len(data)))
        self.at += n_bytes
        return data

    def number(self, code: str) -> Any:
        value = struct.unpack(code, self.take(struct.calcsize(code)))[0]
        return value if not isinstance(value, float) or math.isfinite(value) else None

    def text(self, *, strict: bool = False) -> str:
        length = self.number("<Q")
        if length > LONGEST_TEXT:
            raise damaged(self.path, say("its header claims a text of {n:,} bytes at {at:,}", n=length, at=self.at))
        data = self.take(length)
        try:
            return data.decode("utf-8", "strict" if strict else "backslashreplace")
        except UnicodeDecodeError as error:
            raise damaged(self.path, say("has a name that is not UTF-8 at byte {at:,}", at=self.at - length)) from error

    def value(self, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth > 1:
            what = say("has a value of the unknown kind {kind} at byte {at:,}", kind=kind, at=self.at)
            raise damaged(self.path, what)
        inner, count = self.number("<I"), self.number("<Q")
        self.n_items += count
        if self.n_items > MOST_ITEMS:
            raise damaged(self.path, say("its arrays claim more than {n:,} values", n=MOST_ITEMS))
        if inner in _SCALARS:
            code = _SCALARS[inner]
            return np.frombuffer(self.take(count * struct.calcsize(code)), np.dtype(code)).tolist()
        return [self.value(inner, depth + 1) for _ in range(count)]

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, n_dimensions = self.text(strict=True), self.number("<I")
        if n_dimensions > _MOST_DIMENSIONS:
            what = say("the tensor {name} has {n} dimensions", name=repr(shown(name)), n=n_dimensions)
            raise damaged(self.path, what)
        shape = tuple(self.number("<Q") for _ in range(n_dimensions))[::-1]
        return name, shape, self.number("<I"), self.number("<Q")

    def placed(self, entries: list[tuple[str, tuple[int, ...], int, int]], alignment: Any) -> dict[str, Extent]:
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise damaged(self.path, say("its alignment is {n}", n=shown(str(alignment))))
        begin = -(-self.at // alignment) * alignment
        out: dict[str, Extent] = {}
        for name, shape, kind, offset in entries:
            if name in out:
                raise damaged(self.path, say("the tensor {name} is given twice", name=repr(shown(name))))
            if offset % alignment:
                what = say(
                    "the tensor {name} lies at {at:,}, off the alignment {n}",
                    name=repr(shown(name)),
                    at=offset,
                    n=alignment,
                )
                raise damaged(self.path, what)
            out[name] = self.extent(name, shape, kind, begin + offset)
        end, before = begin, ""
        for extent in sorted(out.values(), key=lambda one: (one.offset, one.info.n_bytes)):
            if extent.offset < end and extent.info.n_bytes:
                a, b = repr(shown(before)), repr(shown(extent.info.name))
                raise damaged(self.path, say("the tensors {a} and {b} share bytes", a=a, b=b))
            end, before = max(end, extent.offset + extent.info.n_bytes), extent.info.name
        return out

    def extent(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> Extent:
        if kind not in TYPES:
            what = say("the tensor {name} has the unknown type {kind}", name=repr(shown(name)), kind=kind)
            raise damaged(self.path, what)
        dtype, block, block_bytes = TYPES[kind]
        row = shape[-1] if shape else 1
        n_bytes = math.prod(shape) // block * block_bytes
        if row % block or any(one >= 1 << 62 for one in shape) or offset + n_bytes > self.size:
            what = say(
                "the tensor {name} of {dtype} and shape {shape} does not fit the file",
                name=repr(shown(name)),
                dtype=dtype,
                shape=str(shape),
            )
            raise damaged(self.path, what)
        decode = partial(_dequantise, kind, row // block * block_bytes) if block > 1 else None
        return Extent(TensorInfo(name, dtype, shape, n_bytes, self.path.name), self.path, offset, decode=decode)


def _dequantise(kind: int, row_bytes: int, raw: Bytes) -> Floats:
    """Rows of a block format in float32. Raises MissingDependency, and CheckpointError for types without a decoder."""
    package = require("gguf")
    try:
        with np.errstate(all="ignore"):  # scales of a damaged file may be infinite
            values: Floats = package.dequantize(raw.reshape(-1, row_bytes), package.GGMLQuantizationType(kind))
    except (NotImplementedError, ValueError) as error:
        what = say("the block format {name} cannot be decoded", name=TYPES[kind][0])
        raise CheckpointError(what, remedy="convert the file to Q8_0 or F16") from error
    return np.ascontiguousarray(values, np.float32).reshape(-1)
