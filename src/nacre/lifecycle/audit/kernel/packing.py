"""Packed tensors split into views of their rows, in the order of the family that packed them.

`whole`: all queries, then all keys, then all values (GPT-2, Qwen-1, Baichuan, MPT, Phi, GLM-2 and later, GGUF).
`grouped`: for each key head its query heads, then the key, then the value (GPT-NeoX, Bloom, Falcon, GLM-1, InternLM2;
with as many key heads as query heads this is the order per head). `quartered`: four shards of query, value and key
(CodeGen).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nacre.lifecycle.audit.canonical import View

Order = Literal["whole", "grouped", "quartered"]
_CODEGEN_SHARDS = 4


@dataclass(frozen=True)
class Packed:
    """A packed query-key-value tensor: rows of queries Q and of keys P, key heads G and head size K."""

    name: str
    columns: int | None
    transposed: bool
    query: int
    key: int
    kv_heads: int | None
    head_size: int | None
    order: Order


def order_of(path: str, layer_roles: Iterable[str], layer_paths: Iterable[str]) -> tuple[Order, bool]:
    """The row order by the packing's name and its siblings, and whether that is known rather than assumed."""
    word = path.rpartition(".")[2]
    is_gated = bool({"gate", "gate_up"} & set(layer_roles))
    if word == "query_key_value":
        return ("whole" if is_gated else "grouped"), True
    if word == "wqkv":
        return "grouped", True
    if word == "qkv_proj" and any(one.endswith("fc_in") for one in layer_paths):
        return "quartered", True
    if word.lower() in ("c_attn", "w_pack", "wqkv", "qkv_proj", "qkv", "in_proj", "attn_qkv", "qkv_attn"):
        return "whole", True
    return "whole", False


def split_qkv(packed: Packed) -> dict[str, View] | None:
    """Views of `q`, `k` and `v`; None where the order needs a head size that nothing tells."""
    if packed.order == "whole":
        ends = (0, packed.query, packed.query + packed.key, packed.query + 2 * packed.key)
        return {
            role: _view(packed, ends[at + 1] - ends[at], start=ends[at], stop=ends[at + 1])
            for at, role in enumerate(("q", "k", "v"))
        }
    if packed.order == "quartered":
        block, order = packed.query // _CODEGEN_SHARDS, ("q", "v", "k")
        return {
            role: _view(packed, packed.query, start=at * block, step=3 * block, block=block)
            for at, role in enumerate(order)
        }
    if not packed.kv_heads or not packed.head_size or packed.query % packed.kv_heads:
        return None
    queries, size = packed.query // packed.kv_heads, packed.head_size
    step = queries + 2 * size
    return {
        "q": _view(packed, packed.query, start=0, step=step, block=queries),
        "k": _view(packed, packed.key, start=queries, step=step, block=size),
        "v": _view(packed, packed.key, start=queries + size, step=step, block=size),
    }


def _view(packed: Packed, rows: int, start: int, stop: int | None = None, step: int = 1, block: int = 1) -> View:
    shape = (rows,) if packed.columns is None else (rows, packed.columns)
    return View(packed.name, shape, packed.transposed and packed.columns is not None, start, stop, step, block)


def split_halves(view: View, roles: tuple[str, ...], alternate: bool = False) -> dict[str, View]:
    """Views of two matrices of one height: halves one after the other, or alternating rows (gpt-oss)."""
    rows, rest = view.shape[0] // 2, view.shape[1:]
    parts = {}
    for at, role in enumerate(roles):
        start, stop, step = (at, None, 2) if alternate else (at * rows, (at + 1) * rows, 1)
        parts[role] = View(view.name, (rows, *rest), view.transposed, start, stop, step, 1, view.index)
    return parts
