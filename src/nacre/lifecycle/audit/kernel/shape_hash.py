"""The hash of a design with numbers: every role's matrix (out, in), and how many layers there are of each kind.

Head counts take no part: where tensors do not show them they are the config's word. Nor does the order of layers, nor
how tensors are packed or lie, nor the length of a table of positions. Empty where a matrix's shape is unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nacre.lifecycle.audit.kernel.graph import HASHED_OUTSIDE, Design
from nacre.lifecycle.audit.kernel.roles import Placed, Stack
from nacre.lifecycle.audit.kernel.sizes import Shape, Solved, out_in
from nacre.lifecycle.audit.kernel.views import expand


def shape_hash(
    design: Design, stacks: Sequence[tuple[Stack, Solved]], shapes: Mapping[str, Shape], unread: frozenset[str]
) -> str:
    """The hash, over the stacks of the language model."""
    if any(one.name in unread or not shapes[one.name] for stack, _ in stacks for one in stack.placed):
        return ""
    parts: list[Any] = [design.lines()]
    for stack, solved in stacks:
        uncounted = {"positions", "embedding"} if stack.label else {"positions"}
        kinds = Counter(json.dumps(_numbers(stack.of_layer(layer), solved, shapes)) for layer in stack.layers)
        outside = [one for one in stack.of_layer(None) if one.role in HASHED_OUTSIDE and one.role not in uncounted]
        parts.append([sorted(kinds.items()), _numbers(outside, solved, shapes)])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _numbers(placed: Sequence[Placed], solved: Solved, shapes: Mapping[str, Shape]) -> list[list[Any]]:
    numbers: Counter[tuple[Any, ...]] = Counter()
    for one in placed:
        shape = shapes[one.name]
        is_stacked = one.name in solved.stacked or (one.part == "bias" and len(shape) == 2)
        count = shape[0] if is_stacked else 1
        if one.part != "bias" and len(shape) >= 2:
            shape = out_in(one, shapes, solved)
        elif is_stacked:
            shape = shape[1:]
        end = ".bias" if one.part == "bias" else ""
        for role, height in zip(expand(one.role), _heights(one.role, shape[0], solved), strict=True):
            numbers[(role + end, height, *shape[1:])] += count
    return [[*key, count] for key, count in sorted(numbers.items(), key=str)]


def _heights(role: str, rows: int, solved: Solved) -> list[int]:
    tail = role.rpartition(".")[2]
    if tail == "qkv":
        key = solved.key if solved.key is not None else rows // 3
        return [rows - 2 * key, key, key]
    return [rows // 2, rows // 2] if tail in ("kv", "gate_up") else [rows]
