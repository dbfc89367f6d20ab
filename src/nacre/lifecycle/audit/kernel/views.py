"""Views of one stack: every stored tensor as the matrices (out, in) that its roles name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nacre.lifecycle.audit.canonical import Key, View
from nacre.lifecycle.audit.kernel.heads import Heads
from nacre.lifecycle.audit.kernel.names import Parsed
from nacre.lifecycle.audit.kernel.packing import Packed, order_of, split_halves, split_qkv
from nacre.lifecycle.audit.kernel.roles import Placed, Stack
from nacre.lifecycle.audit.kernel.sizes import Shape, Solved, out_in
from nacre.lifecycle.audit.said import say

PARTS = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up")}


@dataclass
class Viewed:
    """Views by role and the canonical name of every stored tensor; `notes` says what could not be split."""

    views: dict[Key, View] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """What views of a stack are made from."""

    shapes: Mapping[str, Shape]
    parsed: Mapping[str, Parsed]
    solved: Solved
    heads: Heads
    unreadable: frozenset[str]


def expand(role: str) -> tuple[str, ...]:
    """The roles inside a packed one, itself otherwise: `cross.kv` is `cross.k` and `cross.v`."""
    head, dot, tail = role.rpartition(".")
    return tuple(f"{head}{dot}{part}" for part in PARTS.get(tail, (tail,)))


def views_of(stack: Stack, context: Context) -> Viewed:
    """Every tensor of a stack under canonical names."""
    viewed = Viewed()
    label = f"{stack.label}." if stack.label else ""
    for index, layer in [(None, None), *enumerate(stack.layers)]:
        placed = stack.of_layer(layer)
        for one in placed:
            base = label if index is None else f"{label}layers.{index}."
            viewed.names[one.name] = base + _canonical_key(one)
            if one.name in context.unreadable or not context.shapes.get(one.name):
                continue
            for key, view in _views(one, placed, context, viewed.notes).items():
                viewed.views[(index, label + key)] = view
    viewed.notes = sorted(set(viewed.notes))
    return viewed


def _canonical_key(one: Placed) -> str:
    parts = [replace(one, role=role).key for role in expand(one.role)]
    return "+".join(parts)


def _views(one: Placed, siblings: list[Placed], context: Context, notes: list[str]) -> dict[str, View]:
    shape = context.shapes[one.name]
    flipped = context.solved.flipped.get(one.name, False)
    if one.name in context.solved.stacked or (one.part == "bias" and len(shape) == 2):
        views: dict[str, View] = {}
        for expert in range(shape[0]):
            rest = shape[1:][::-1] if flipped else shape[1:]
            whole = View(one.name, rest, flipped and len(rest) == 2, index=expert)
            views |= _parts(replace(one, expert=expert), whole, siblings, context, notes)
        return views
    if len(shape) == 2:
        shape = out_in(one, context.shapes, context.solved)
    return _parts(one, View(one.name, shape, flipped), siblings, context, notes)


def _parts(one: Placed, whole: View, siblings: list[Placed], context: Context, notes: list[str]) -> dict[str, View]:
    tail = one.role.rpartition(".")[2]
    head = one.role.removesuffix(tail)
    if tail in ("kv", "gate_up"):
        alternate = tail == "gate_up" and any(other.role == "sinks" for other in siblings)
        found: dict[str, View] | None = split_halves(whole, PARTS[tail], alternate)
    elif tail == "qkv":
        found = _split(one, whole, siblings, context, notes)
    else:
        found = {tail: whole}
    return {replace(one, role=head + role).key: view for role, view in (found or {}).items()}


def _split(
    one: Placed, whole: View, siblings: list[Placed], context: Context, notes: list[str]
) -> dict[str, View] | None:
    parsed, solved = context.parsed[one.name], context.solved
    paths = [context.parsed[other.name].path for other in siblings]
    order, is_known = order_of(parsed.path, [other.role for other in siblings], paths)
    if not is_known:
        notes.append("queries, keys and values lie in one tensor whose name does not tell the order of its rows: "
                     "taken as all queries, all keys, all values")  # fmt: skip
    query, key = solved.query, solved.key
    if query is None or key is None or query + 2 * key != whole.shape[0]:
        template = "{role} is not split: its {rows} rows do not fit {query} of queries, {key} of keys"
        notes.append(say(template, role=one.role, rows=whole.shape[0], query=query, key=key))
        return None
    columns = whole.shape[1] if len(whole.shape) > 1 else None
    packed = Packed(one.name, columns, whole.transposed, query, key, context.heads.kv_heads, context.heads.head_size,
                    order)  # fmt: skip
    found = split_qkv(packed)
    if found is None:
        notes.append("queries, keys and values are interleaved by head and the head size is unknown: not split")
    return found
