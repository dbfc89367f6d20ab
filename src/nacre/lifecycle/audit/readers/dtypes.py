"""Numbers of foreign files in float32, without torch: sizes of the dtypes and one decoder each.

Words are those of safetensors. BF16 is the upper half of a float32; eight-bit floats go through a table of their 256
values (Micikevicius et al. 2022, table 1; the FNUZ variants as in ONNX: one zero, one NaN, bias one larger).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from nacre.lifecycle.audit.tensors import Floats

Bytes = NDArray[np.uint8]

PLAIN = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|u1",
}  # fmt: skip
EIGHT = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0")
# Bits of every dtype that a safetensors header may name; those without a decoder can be hashed but not read.
BITS = {
    **{name: int(code[2]) * 8 for name, code in PLAIN.items()},
    **dict.fromkeys(EIGHT, 8),
    "BF16": 16, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", *EIGHT})


def decoder(dtype: str) -> Callable[[Bytes], Floats] | None:
    """What turns a tensor's bytes into float32 values; None where the dtype's values cannot be read."""
    if dtype == "BF16":
        return _bfloat
    if dtype in EIGHT:
        return partial(_eight, dtype)
    return partial(_plain, PLAIN[dtype]) if dtype in PLAIN else None


def _plain(code: str, raw: Bytes) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32 becomes infinite
        values: Floats = raw.view(code).astype(np.float32)
    return values


def _bfloat(raw: Bytes) -> Floats:
    wide = raw.view("<u2").astype("<u4")
    wide <<= 16
    return wide.view(np.float32)


def _eight(dtype: str, raw: Bytes) -> Floats:
    return eight_bit_values(dtype)[raw]


@cache
def eight_bit_values(dtype: str) -> Floats:
    """The 256 values of an eight-bit float, by code."""
    codes = np.arange(256)
    if dtype == "F8_E8M0":  # a power of two, as scales of microscaling formats are
        return np.where(codes == 255, np.nan, np.exp2(codes - 127.0)).astype(np.float32)
    fnuz = dtype.endswith("FNUZ")
    mantissa_bits, bias = (3, 7 + fnuz) if "E4M3" in dtype else (2, 15 + fnuz)
    exponent = (codes & 0x7F) >> mantissa_bits
    fraction = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    size = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * np.exp2(exponent - float(bias)))
    if fnuz:
        size[0x80] = np.nan
    elif "E4M3" in dtype:
        size[[0x7F, 0xFF]] = np.nan
    else:
        size[[0x7C, 0xFC]] = np.inf
        size[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return np.where(codes >= 128, -size, size).astype(np.float32)
