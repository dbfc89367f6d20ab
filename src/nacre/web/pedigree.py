"""The lineage of an artifact as a drawing: each artifact once, its parents to the left, edges by how they are known.

What the command prints as a tree is a graph in which an artifact may stand behind several others; here it stands once.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from nacre.lineage.finding import Finding
from nacre.lineage.graph import Node
from nacre.web.graph import Layout, Sizes, lay_out

SIZES = Sizes()
MOST_DRAWN = 160
_COLUMNS, _LICENCE_COLUMNS = 24, 18  # of a name and a licence in a box; Chinese characters take two
_SURENESS = ("witnessed", "declared", "inferred")
_LABEL_ROOM = 13.0


@dataclass
class Place:
    """An artifact in the graph. `is_here` says that it has a page; `warnings` are about it."""

    id: str
    ref: str
    kind: str | None
    licence: str | None
    origin: str | None
    digest: str | None
    stage: str | None
    basis: str
    is_here: bool
    warnings: tuple[Finding, ...] = ()
    is_wrong: bool = False
    x: float = 0.0
    y: float = 0.0
    parents: list[Bond] = field(default_factory=list)

    @property
    def label(self) -> str:
        return middle_cut(self.ref, _COLUMNS)

    @property
    def licence_label(self) -> str:
        return middle_cut(self.licence, _LICENCE_COLUMNS) if self.licence else ""


@dataclass
class Bond:
    """An edge: what `parent` is to the artifact `child`, by all relations between the two. `p_value`, `inferred_kind`
    and `audit` are an audit's; `how` is the surest way in which the edge is known."""

    parent: Place
    child: Place
    relations: tuple[str, ...]
    how: str
    disputes: tuple[Finding, ...] = ()
    p_value: float | None = None
    inferred_kind: str = ""
    audit: str = ""
    path: str = ""
    tip: str = ""
    label_at: tuple[float, float] | None = None
    has_room: bool = False  # for a second line of label


@dataclass(frozen=True)
class Line:
    """A line of the outline: `bond` leads to what it was made into; `again` says that its parents stand further up."""

    depth: int
    bond: Bond | None
    place: Place
    again: bool


@dataclass(frozen=True)
class Pedigree:
    """`places` come with the artifact itself first. `left_out` are further ancestors, beyond what can be drawn."""

    places: tuple[Place, ...]
    bonds: tuple[Bond, ...]
    left_out: int
    width: float
    height: float

    def outline(self) -> list[Line]:
        """The graph as an indented list, the artifact first; what was told before is not unfolded again."""
        found: list[Line] = []
        pending: list[tuple[int, Bond | None, Place]] = [(0, None, self.places[0])]
        told: set[str] = set()
        while pending:
            depth, bond, place = pending.pop()
            again = place.id in told and bool(place.parents)
            found.append(Line(depth, bond, place, again))
            if not again:
                told.add(place.id)
                pending += [(depth + 1, one, one.parent) for one in reversed(place.parents)]
        return found

    @property
    def states(self) -> list[str]:
        """The ways in which edges are drawn here, for the legend."""
        used = {bond.how for bond in self.bonds} | {"disputed" for bond in self.bonds if bond.disputes}
        return [one for one in (*_SURENESS, "disputed") if one in used]


def pedigree(root: Node, here: Collection[str]) -> Pedigree:
    """The graph of a trace. `here` are the references that have a page."""
    places, bonds = _merged(root, here)
    order = list(places.values())
    drawn = {one.id for one in order[:MOST_DRAWN]}
    shown = [bond for bond in bonds.values() if {bond.parent.id, bond.child.id} <= drawn]
    layout = lay_out([one.id for one in order[:MOST_DRAWN]], [(bond.parent.id, bond.child.id) for bond in shown], SIZES)
    for one in order[:MOST_DRAWN]:
        one.x, one.y = layout.places[one.id]
    for bond in shown:
        points = layout.routes[bond.parent.id, bond.child.id]
        bond.path, (x, y) = curve(points), points[-1]
        bond.tip = f"M{x:.1f} {y:.1f}l-7 -3.5v7z"
    _place_labels(shown, layout)
    for one in order:
        one.parents = [bond for bond in bonds.values() if bond.child is one]
    return Pedigree(
        tuple(order[:MOST_DRAWN]), tuple(shown), max(0, len(order) - MOST_DRAWN), layout.width, layout.height
    )


Key = tuple[str, str | None, bool]


def _merged(root: Node, here: Collection[str]) -> tuple[dict[Key, Place], dict[tuple[str, str], Bond]]:
    """Every artifact once, the nearest to the root first, and the edges between them.

    Two audits may infer a parent both ways: where an edge would close a circle, its parent stands once more, alone.
    """
    places: dict[Key, Place] = {}
    bonds: dict[tuple[str, str], Bond] = {}
    pending = deque([root])
    places[_key(root)] = _place(root, 0, here)
    unfolded: set[Key] = set()
    while pending:
        child_node = pending.popleft()
        child = places[_key(child_node)]
        if _key(child_node) in unfolded:
            continue
        unfolded.add(_key(child_node))
        for node in child_node.parents:
            key = _key(node)
            known = places.get(key)
            if known is not None and (known is child or _reaches(child, known, bonds)):
                key = (*key[:2], True)
            if key not in places:
                places[key] = _place(node, len(places), here)
            elif node.parents and key not in unfolded:
                _tell(places[key], node)
            if not key[2]:
                pending.append(node)
            _bind(bonds, places[key], child, node)
    return places, bonds


def _reaches(start: Place, end: Place, bonds: Mapping[tuple[str, str], Bond]) -> bool:
    """Whether `end` was made from `start`, by the edges so far."""
    made: dict[str, list[str]] = {}
    for parent, child in bonds:
        made.setdefault(parent, []).append(child)
    pending, seen = [start.id], {start.id}
    while pending:
        for one in made.get(pending.pop(), ()):
            if one == end.id:
                return True
            if one not in seen:
                seen.add(one)
                pending.append(one)
    return False


def _key(node: Node) -> Key:
    return (node.ref, node.digest, False)


def _place(node: Node, number: int, here: Collection[str]) -> Place:
    record = node.record
    place = Place(
        f"n{number}", node.ref, node.kind, node.licence, node.origin, node.digest, record.stage if record else None,
        node.basis, node.ref in here,
    )  # fmt: skip
    _tell(place, node)
    return place


def _tell(place: Place, node: Node) -> None:
    """Adds the warnings of one occurrence: the same artifact may be reached soundly and unsoundly."""
    place.warnings = tuple(dict.fromkeys([*place.warnings, *node.warnings]))
    place.is_wrong = place.is_wrong or any(one.kind in ("integrity", "missing") for one in node.warnings)


def _bind(bonds: dict[tuple[str, str], Bond], parent: Place, child: Place, node: Node) -> None:
    how = node.relation_basis if node.relation_basis in _SURENESS else "declared"
    relation = (node.relation,) if node.relation else ()
    told = node.inferred
    bond = bonds.get((parent.id, child.id))
    if bond is None:
        bond = bonds[parent.id, child.id] = Bond(parent, child, relation, how, node.disputes)
    else:
        bond.relations = tuple(dict.fromkeys([*bond.relations, *relation]))
        bond.disputes = tuple(dict.fromkeys([*bond.disputes, *node.disputes]))
        bond.how = min(bond.how, how, key=_SURENESS.index)
    if told:
        p_value = told.get("p_value")
        bond.p_value = float(p_value) if isinstance(p_value, int | float) else None
        bond.inferred_kind = str(told.get("kind") or told.get("verdict") or "")
        bond.audit = str(told.get("audit") or "")


def _place_labels(bonds: list[Bond], layout: Layout) -> None:
    """Labels stand where their edge leaves its parent, and only where they do not run into each other."""
    leaving: dict[str, list[tuple[float, Bond]]] = {}
    for bond in bonds:
        y = layout.routes[bond.parent.id, bond.child.id][0][1]
        leaving.setdefault(bond.parent.id, []).append((y, bond))
    for group in leaving.values():
        group.sort(key=lambda one: one[0])
        told: set[tuple[tuple[str, ...], str, tuple[Finding, ...]]] = set()
        last = -1e9
        for y, bond in group:
            label = (bond.relations, bond.how, bond.disputes)
            if y - last < _LABEL_ROOM or (label in told and not bond.audit):
                continue
            bond.label_at = (round(bond.parent.x + SIZES.width + 8, 1), round(y - 5, 1))
            bond.has_room = len(group) == 1
            told.add(label)
            last = y


def curve(points: list[tuple[float, float]]) -> str:
    """The `d` of a path through an edge's points: level at each end, bent within the gaps, straight between them."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for index in range(0, len(points), 2):
        (x, y), (end, to) = points[index], points[index + 1]
        half = (x + end) / 2
        parts.append(f"C{half:.1f} {y:.1f} {half:.1f} {to:.1f} {end:.1f} {to:.1f}")
        if index + 2 < len(points):
            parts.append(f"L{points[index + 2][0]:.1f} {points[index + 2][1]:.1f}")
    return "".join(parts)


def middle_cut(text: str, columns: int) -> str:
    """`text` in at most `columns` columns, the middle cut out of a longer one; what cannot be printed is shown as ␣."""
    shown = "".join(one if one.isprintable() else "␣" for one in text)
    widths = [2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in shown]
    if sum(widths) <= columns:
        return shown
    room = columns - 1
    head, used = 0, 0
    while used + widths[head] <= room // 2:
        used += widths[head]
        head += 1
    tail = len(shown)
    while used + widths[tail - 1] <= room:
        tail -= 1
        used += widths[tail]
    return f"{shown[:head]}…{shown[tail:]}"
