"""Foreign files for the audit's tests: small, valid ones of every format, written without Nacre's own readers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np


def safetensors_bytes(header: dict[str, Any] | bytes, values: bytes = b"") -> bytes:
    """A file of this header (as given where it is bytes) and these bytes of values."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def small_safetensors() -> bytes:
    """Two tensors: `a` F32 (2, 3), `b` BF16 (4,)."""
    values = np.arange(6, dtype="<f4").tobytes() + np.array([0x3F80, 0x4000, 0x4040, 0x4080], "<u2").tobytes()
    return safetensors_bytes({"a": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [4], 24, 32)}, values)


def gguf_bytes(tensors: list[tuple[str, tuple[int, ...], int, bytes]], metadata: dict[str, Any] | None = None) -> bytes:
    """A GGUF file, version 3. `tensors`: (name, rows-first shape, ggml's type, bytes); metadata: texts, integers."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def typed(value: Any) -> bytes:
        if isinstance(value, str):
            return struct.pack("<I", 8) + text(value)
        if isinstance(value, list):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(one) for one in value)
        return struct.pack("<II", 4, value)

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata or {}))
    head += b"".join(text(key) + typed(value) for key, value in (metadata or {}).items())
    values = b""
    for name, shape, kind, data in tensors:
        values += b"\0" * (-len(values) % 32)
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += struct.pack("<IQ", kind, len(values))
        values += data
    return head + b"\0" * (-len(head) % 32) + values


def small_gguf() -> bytes:
    """A plain matrix, one of Q8_0 blocks, a config and three tokens."""
    q8 = b"".join(struct.pack("<e32b", 0.5, *range(-16, 16)) for _ in range(2))
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 32,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b", "中"],
    }
    tensors = [("plain", (2, 3), 0, np.arange(6, dtype="<f4").tobytes()), ("packed", (2, 32), 8, q8)]
    return gguf_bytes(tensors, metadata)


def write_folder(folder: Path, weights: bytes | None = None, **texts: Any) -> Path:
    """A model's folder with `model.safetensors` and JSON files (`config={...}`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(small_safetensors() if weights is None else weights)
    for name, value in texts.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder
