"""Roles from shapes alone, where names say nothing: each layer is a bag of shapes, matched against every public design.

A design fits a layer where the shapes it needs, for some hidden size D, query rows Q, key rows P and feed-forward F
among the layer's own numbers, are all in the bag. The design that leaves least unexplained is taken. Roles of one shape
(q and o of a square, gate and up) stay ambiguous unless values tell them (`values.py`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product

from nacre.lifecycle.audit.kernel.assign import Assigner
from nacre.lifecycle.audit.kernel.families import FAMILIES
from nacre.lifecycle.audit.kernel.names import Parsed
from nacre.lifecycle.audit.kernel.roles import Placed, Stack
from nacre.lifecycle.audit.kernel.sizes import Shape
from nacre.lifecycle.audit.kernel.stacks import Stacks
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import TensorSource

_PACKINGS: tuple[tuple[tuple[str, ...], ...], ...] = ((), (("q", "k", "v"),), (("gate", "up"),),
                                                      (("q", "k", "v"), ("gate", "up")), (("k", "v"),))  # fmt: skip
_PACKED = {("q", "k", "v"): "qkv", ("gate", "up"): "gate_up", ("k", "v"): "kv"}
_LARGEST_BAG = 64  # tensors of a layer: a layer of experts without names is not solved
_FEWEST_POSITIONS = 32


@dataclass
class Found:
    """Stacks solved from shapes, what was assumed, and roles that stay ambiguous. `is_exact`: nothing of any layer is
    left over, and every matrix lies (out, in)."""

    stacks: Stacks
    notes: list[str] = field(default_factory=list)
    ambiguous: tuple[tuple[str, ...], ...] = ()
    is_exact: bool = False


@dataclass(frozen=True)
class Fit:
    """Stored shape of each role of one layer, under one design and one orientation."""

    family: str
    roles: tuple[tuple[str, Shape], ...]
    left: int
    is_upright: bool


def find_by_shapes(
    parsed: Sequence[Parsed], shapes: Mapping[str, Shape], source: TensorSource | None, trust_names: bool
) -> Found | None:
    """The stack that shapes tell; None where they fit no public design of a decoder or encoder."""
    layers, notes = _layers(parsed, shapes)
    if not layers:
        return None
    hidden = _hidden(layers, shapes)
    inside = {one.name for members in layers.values() for one in members}
    outside, apart = _around([one for one in parsed if one.name not in inside and shapes[one.name]], shapes, hidden)
    vectors = sum(shapes[one.name] == (hidden,) for one in outside)
    biased = None if vectors == 0 else vectors > 1  # a norm outside the layers has a bias where those inside have
    stack, unmapped = Stack("(by shape)"), [one.name for one in apart]
    assigner = Assigner(shapes, source, trust_names)
    families: Counter[str] = Counter()
    is_exact = True
    usual = _usual(layers, shapes)
    for layer, members in sorted(layers.items()):
        fit, taken = _fit_of(members, usual, shapes, hidden, biased)
        if fit is None:
            unmapped += [one.name for one in members]
            is_exact = False
            continue
        families[fit.family] += 1
        is_exact = is_exact and len(taken) == len(members) and fit.left == 0 and fit.is_upright
        placed = assigner.assign(layer, taken, fit.roles)
        known = {one.name for one in placed}
        stack.placed += placed
        unmapped += [one.name for one in members if one.name not in known]
    if not stack.placed:
        return None
    placed, left = _outside(outside, shapes, hidden, assigner)
    stack.placed += placed
    notes.append(say("shapes fit the layers of {family} best", family=families.most_common(1)[0][0]))
    return Found(
        Stacks(stack, unmapped=sorted([*unmapped, *left])), [*notes, *assigner.notes], assigner.ambiguous(), is_exact
    )


def _around(outside: Sequence[Parsed], shapes: Mapping[str, Shape], hidden: int) -> tuple[list[Parsed], list[Parsed]]:
    """What stands around the stack, and numbered tensors beside it, which count only where nothing else is a table."""
    plain = [one for one in outside if one.layer is None]
    has_table = any(len(shapes[one.name]) == 2 and shapes[one.name][1] == hidden for one in plain)
    return (plain, [one for one in outside if one.layer is not None]) if has_table else (list(outside), [])


def _usual(layers: Mapping[int, Sequence[Parsed]], shapes: Mapping[str, Shape]) -> tuple[set[str], str]:
    """Templates that stand in half of the layers or more, always in one shape; the prefix of most of their tensors.

    Tensors that nothing reads (dummies beside the model) are numbered without regard to its layers.
    """
    found: dict[str, set[Shape]] = defaultdict(set)
    members = [one for layer in layers.values() for one in layer]
    count = Counter(one.template for one in members)
    for one in members:
        found[one.template].add(shapes[one.name])
    usual = {template for template, kinds in found.items() if len(kinds) == 1 and 2 * count[template] >= len(layers)}
    stacks = Counter(one.stack for one in members if one.template in usual)
    return usual, stacks.most_common(1)[0][0] if stacks else ""


def _fit_of(
    members: Sequence[Parsed],
    usual: tuple[set[str], str],
    shapes: Mapping[str, Shape],
    hidden: int,
    biased: bool | None,
) -> tuple[Fit | None, list[Parsed]]:
    """The best design of a layer and the tensors it was told from: without strangers where that leaves nothing over."""
    templates, stack = usual
    regular = [one for one in members if one.template in templates]
    tried = [list(members), regular, [one for one in regular if one.stack == stack]]
    fits = []
    for some in tried:
        bag = tuple(sorted(shapes[one.name] for one in some))
        fit = _best(bag, hidden, biased) if 0 < len(bag) <= _LARGEST_BAG else None
        if fit is not None and fit.left == 0:
            return fit, some
        fits.append((fit, some))
    return next(((fit, some) for fit, some in reversed(fits) if fit is not None), (None, list(members)))


def _layers(parsed: Sequence[Parsed], shapes: Mapping[str, Shape]) -> tuple[dict[int, list[Parsed]], list[str]]:
    """Tensors by the first number of their name; by their order in the file where names hold no numbers."""
    numbered = [one if one.layer is not None else _loosely_numbered(one) for one in parsed if shapes.get(one.name)]
    layers: dict[int, list[Parsed]] = defaultdict(list)
    for one in numbered:
        if one.layer is not None:
            layers[one.layer].append(one)
    usual = Counter(len(one) for one in layers.values()).most_common(1)
    if layers and usual[0][0] >= 4:
        return {layer: members for layer, members in layers.items() if len(members) >= usual[0][0] // 2}, []
    return _by_order([one for one in parsed if shapes.get(one.name)], shapes)


def _loosely_numbered(one: Parsed) -> Parsed:
    match = re.search(r"\d+", one.name)
    if match is None:
        return one
    path = one.name[: match.start()] + one.name[match.end() :]
    return replace(one, layer=int(match.group()), path=path, template=path)


def _by_order(parsed: Sequence[Parsed], shapes: Mapping[str, Shape]) -> tuple[dict[int, list[Parsed]], list[str]]:
    """Layers as the shortest period of shapes that covers the file, with a few tensors before and after it."""
    sequence = [shapes[one.name] for one in parsed]
    best: tuple[int, int, int] = (0, 0, 0)
    for period in range(4, min(_LARGEST_BAG, len(sequence) // 2) + 1):
        run = 0
        for at in range(len(sequence) - period):
            run = run + 1 if sequence[at] == sequence[at + period] else 0
            covered = (run // period + 1) * period if run >= period else 0
            if covered > best[0]:
                best = (covered, at + period - run - period + 1, period)
    covered, start, period = best
    if covered * 2 < len(sequence):
        return {}, []
    members = parsed[start : start + covered]
    layers: dict[int, list[Parsed]] = defaultdict(list)
    for at, one in enumerate(members):
        layers[at // period].append(replace(one, layer=at // period, template=f"{at % period:02d}"))
    return layers, ["names hold no layer numbers: layers were told by the order of tensors in the file"]


def _hidden(layers: Mapping[int, Sequence[Parsed]], shapes: Mapping[str, Shape]) -> int:
    sides = Counter(side for members in layers.values() for one in members if len(shapes[one.name]) == 2
                    for side in set(shapes[one.name]))  # fmt: skip
    vectors = Counter(
        shapes[one.name][0] for members in layers.values() for one in members if len(shapes[one.name]) == 1
    )
    return max(sides, key=lambda side: (sides[side], vectors[side])) if sides else 0


@cache
def _best(bag: tuple[Shape, ...], hidden: int, biased: bool | None) -> Fit | None:
    """The design that explains most of a bag; of equals the first family's. `biased` is whether norms have biases."""
    have = Counter(bag)
    fits = [Fit(family, roles, len(bag) - len(roles), up) for family, roles, up in _candidates(bag, hidden, biased)
            if not Counter(shape for _, shape in roles) - have]  # fmt: skip
    return min(fits, key=lambda one: one.left) if fits else None


def _candidates(
    bag: tuple[Shape, ...], hidden: int, biased: bool | None
) -> Iterator[tuple[str, tuple[tuple[str, Shape], ...], bool]]:
    sides = {side for shape in bag if len(shape) == 2 for side in shape}
    vectors = {shape[0] for shape in bag if len(shape) == 1}
    widths = sorted(sides | {side // 2 for side in sides if side % 2 == 0})
    keys = sorted(sides | {(side - query) // 2 for side in sides for query in sides if side > query})
    for family, roles in _kinds():
        if biased is not None and ("norm1.bias" in roles) != biased:
            continue
        heads = sorted(vectors) if "q_norm" in roles else [0]
        for packing, flipped in product(_PACKINGS, (False, True)):
            packed = {role for group in packing for role in group}
            if not packed <= roles or len({f"{role}.bias" in roles for role in packed}) > 1:
                continue
            for query, key, ffn, head in product(sorted(sides), keys, widths, heads):
                if 0 < key <= query and query % key == 0 and key != 1 and (not head or key % head == 0):
                    yield family, tuple(_shapes(roles, packing, flipped, (hidden, query, key, ffn, head))), not flipped


@cache
def _kinds() -> tuple[tuple[str, frozenset[str]], ...]:
    """Layers of the table that hold dense attention and a dense feed-forward, each once."""
    kinds: dict[frozenset[str], str] = {}
    for family in FAMILIES:
        for kind in family.design().layers:
            if {"q", "down"} <= kind and "kv_a" not in kind and "cross.q" not in kind:
                kinds.setdefault(kind, family.name)
    return tuple((name, kind) for kind, name in kinds.items())


def _shapes(
    roles: frozenset[str], packing: tuple[tuple[str, ...], ...], flipped: bool, sizes: tuple[int, int, int, int, int]
) -> Iterator[tuple[str, Shape]]:
    hidden, query, key, ffn, head = sizes
    rows = {"q": query, "k": key, "v": key, "o": hidden, "gate": ffn, "up": ffn, "down": hidden, "q_norm": head,
            "k_norm": head}  # fmt: skip
    columns = {"o": query, "down": ffn}
    packed = {role: group for group in packing for role in group}
    for role in sorted(roles):
        bare, is_bias = role.removesuffix(".bias"), role.endswith(".bias")
        group = packed.get(bare)
        if group and bare != group[0]:
            continue
        name = _PACKED[group] if group else bare
        height = sum(rows[one] for one in group) if group else rows.get(bare, hidden)
        if is_bias or bare not in rows or bare.endswith("norm"):
            yield name + (".bias" if is_bias else ""), (height,)
        else:
            shape = (height, columns.get(bare, hidden))
            yield name, shape[::-1] if flipped else shape


def _outside(
    parsed: Sequence[Parsed], shapes: Mapping[str, Shape], hidden: int, assigner: Assigner
) -> tuple[list[Placed], list[str]]:
    """Tables by height: the tallest is the embedding (and a head of its height), then positions, then token types."""
    tables = [one for one in parsed if len(shapes[one.name]) == 2 and shapes[one.name][1] == hidden]
    tables = [one for one in tables if shapes[one.name][0] != hidden]
    roles: list[tuple[str, Shape]] = []
    heights = sorted({shapes[one.name][0] for one in tables}, reverse=True)
    if heights:
        count = sum(shapes[one.name][0] == heights[0] for one in tables)
        roles += [(role, (heights[0], hidden)) for role in ("embedding", "head")[:count]]
    roles += [("positions", (height, hidden)) for height in heights[1:] if height >= _FEWEST_POSITIONS][:1]
    types = [("token_types", (height, hidden)) for height in heights[1:] if height <= 4][:1]
    vectors = sum(shapes[one.name] == (hidden,) for one in parsed)
    norms = ["embedding_norm"] if types else ["embedding_norm", "final_norm"] if vectors == 4 else ["final_norm"]
    wanted = [norm + end for norm in norms for end in ("", ".bias")]
    roles += [*types, *[(role, (hidden,)) for role in wanted[:vectors]]]
    placed = assigner.assign(None, parsed, tuple(roles))
    known = {one.name for one in placed}
    return placed, [one.name for one in parsed if one.name not in known]
