"""SHA-256 of tensors, so that copies meet whatever their names, shards and dtypes.

Canonical bytes: a float tensor's are those of the narrowest of BF16, F16, F32, F64 that holds every one of its values
bit for bit; so a model and its copy in a wider dtype have the same digests. Integers and packed blocks stand for
themselves under their own dtype. A digest knows no shape: a tensor reshaped is the same, one transposed is not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.readers.dtypes import EIGHT, PLAIN, decoder
from nacre.lifecycle.audit.readers.files import shown
from nacre.lifecycle.audit.tensors import TensorSource
from nacre.progress import Progress, Silent

MOST_THREADS = 4
# Narrower dtypes a tensor of each may fit, narrowest first; the last resort is always its own bytes.
_NARROWER: dict[str, tuple[str, ...]] = {
    "F16": ("BF16",),
    "F32": ("BF16", "F16"),
    "F64": ("BF16", "F16", "F32"),
    **dict.fromkeys(EIGHT, ("BF16",)),
}


@dataclass(frozen=True)
class TensorDigest:
    """`raw` is the SHA-256 of the stored bytes, `canonical` is `DTYPE:SHA-256` of the canonical ones."""

    dtype: str
    shape: tuple[int, ...]
    raw: str
    canonical: str


def digest_tensors(source: TensorSource, names: Iterable[str] | None = None) -> dict[str, str]:
    """The canonical digest of each tensor (all of them by default). Raises CheckpointError as `blocks` does."""
    return {name: digest.canonical for name, digest in hash_tensors(source, names).items()}


def hash_tensors(
    source: TensorSource,
    names: Iterable[str] | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, TensorDigest]:
    """Both digests of each tensor, every byte read once, in threads; a few MiB of memory for each thread."""
    wanted = list(source.infos if names is None else names)
    report = progress or Silent()
    total, done = sum(source.infos[name].n_bytes for name in wanted if name in source.infos), 0
    out: dict[str, TensorDigest] = {}
    with ThreadPoolExecutor(threads or min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for name, digest in zip(wanted, pool.map(lambda one: hash_tensor(source, one), wanted), strict=True):
            out[name] = digest
            done += source.infos[name].n_bytes
            report.update(done, total)
    return out


def hash_tensor(source: TensorSource, name: str) -> TensorDigest:
    """Both digests of one tensor."""
    if name not in source.infos:
        raise CheckpointError(f"there is no tensor {shown(name)!r}", remedy="name one of the file's tensors")
    info, raw = source.infos[name], hashlib.sha256()
    live = {dtype: hashlib.sha256() for dtype in _NARROWER.get(info.dtype, ())}
    for block in source.blocks(name):
        raw.update(block)
        if live:
            _narrow(info.dtype, block, live)
    dtype, narrow = next(iter(live.items()), (info.dtype, raw))
    return TensorDigest(info.dtype, info.shape, raw.hexdigest(), f"{dtype}:{narrow.hexdigest()}")


def _narrow(dtype: str, block: memoryview, live: dict[str, Any]) -> None:
    """Feeds the block, narrowed, to every hash that is still alive; one whose dtype does not hold it is dropped."""
    values = _as_single(dtype, block)
    if values is None:
        live.clear()
        return
    bits = values.view("<u4")
    for narrower in list(live):
        narrowed = _narrowed(narrower, values, bits)
        if narrowed is None:
            del live[narrower]
        else:
            live[narrower].update(narrowed.data)


def _as_single(dtype: str, block: memoryview) -> NDArray[np.float32] | None:
    """The block in float32, bit for bit; None where float64 does not fit."""
    raw = np.frombuffer(block, np.uint8)
    if dtype == "F32":
        return raw.view("<f4")
    decode = decoder(dtype)
    if decode is None:
        return None
    values = decode(raw)
    if dtype != "F64":
        return values
    return values if np.array_equal(values.astype("<f8").view("<u8"), raw.view("<u8")) else None


def _narrowed(dtype: str, values: NDArray[np.float32], bits: NDArray[np.uint32]) -> NDArray[Any] | None:
    if dtype == "F32":
        return values
    if dtype == "BF16":
        return None if np.any(bits & np.uint32(0xFFFF)) else (bits >> 16).astype("<u2")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        half = values.astype(PLAIN[dtype])
        return half if np.array_equal(half.astype("<f4").view("<u4"), bits) else None
