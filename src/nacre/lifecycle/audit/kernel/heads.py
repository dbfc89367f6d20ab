"""How many heads, and how wide: shapes first, then what a config says as far as it fits the shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nacre.lifecycle.audit.kernel import declared
from nacre.lifecycle.audit.kernel.roles import Stack
from nacre.lifecycle.audit.kernel.sizes import Shape, Solved

_SECTION = {"encoder": "encoder", "vision": "vision_config", "audio": "audio_config"}


FITTING = "the config, which fits the shapes"
NOTHING = "nothing that fits the shapes"


@dataclass(frozen=True)
class Heads:
    """Query heads, key heads and head size, with the source of the head size in words."""

    heads: int | None
    kv_heads: int | None
    head_size: int | None
    source: str


def solve_heads(
    stack: Stack, shapes: Mapping[str, Shape], solved: Solved, config: Mapping[str, Any], inert: Mapping[str, Shape]
) -> Heads:
    """The head size from q_norm's width, else a config's value that fits, else rotary frequencies, else unknown."""
    query, key = solved.query, solved.key
    if any(one.role == "kv_a" for one in stack.placed):
        heads = declared.sizes(config)["heads"]
        if heads is not None and query is not None and query % heads == 0:
            return Heads(heads, heads, None, FITTING)
        return Heads(None, None, None, NOTHING)
    if query is None or key is None:
        return Heads(None, None, None, NOTHING)
    norm = next((shapes[one.name] for one in stack.placed if one.role == "q_norm" and shapes.get(one.name)), None)
    if norm is not None and norm[-1] < query and _fits(norm[-1], query, key):
        return _heads(query, key, norm[-1], "the width of the queries' norm")
    said = declared.sizes(config)
    rotary = _rotary(inert)
    for size in _candidates(said, query, key):
        contradicted = rotary is not None and rotary > size
        if _fits(size, query, key) and not contradicted:
            return _heads(query, key, size, FITTING)
    if rotary is not None and _fits(rotary, query, key):
        return _heads(query, key, rotary, "the rotary frequencies")
    return Heads(None, None, None, NOTHING)


def _candidates(said: Mapping[str, int | None], query: int, key: int) -> list[int]:
    """Head sizes that a config implies: those on which two of its fields agree with the shapes come first."""
    heads, groups, size = said["heads"], said["kv_heads"], said["head_size"]
    by_heads = query // heads if heads and query % heads == 0 else None
    by_groups = key // groups if groups and key % groups == 0 else None
    agreed = [one for one in (by_heads, by_groups, size) if one and (by_heads, by_groups, size).count(one) > 1]
    return [*agreed, *(one for one in (by_groups if groups != heads else None, by_heads, size, by_groups) if one)]


def _fits(size: int, query: int, key: int) -> bool:
    return size > 0 and query % size == 0 and key % size == 0


def _heads(query: int, key: int, size: int, source: str) -> Heads:
    return Heads(query // size, key // size, size, source)


def _rotary(inert: Mapping[str, Shape]) -> int | None:
    """Twice the number of rotary frequencies: the head size, or the rotated part of it."""
    lengths = {shape[0] for name, shape in inert.items() if name.endswith("inv_freq") and len(shape) == 1}
    return 2 * lengths.pop() if len(lengths) == 1 else None


def section(config: Mapping[str, Any] | None, label: str) -> Mapping[str, Any]:
    """The part of a config that speaks of one stack."""
    if not label:
        return declared.language_config(config)
    part = (config or {}).get(_SECTION.get(label, label))
    if isinstance(part, Mapping):
        return part
    return declared.language_config(config) if label == "encoder" else {}
