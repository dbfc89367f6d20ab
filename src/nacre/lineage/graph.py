"""The lineage graph: an artifact's parents walked to raw data, each one compared with what its child recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nacre.errors import IntegrityError, NacreError, ReferenceNotFound
from nacre.lineage.difference import differences
from nacre.lineage.inferred import Conclusion, conclusions, disagreements, is_unconfirmed
from nacre.lineage.licence import concern
from nacre.lineage.record import Parent, Record
from nacre.lineage.store import Resolved, Store

# What an artifact is measured with, or judges, does not hand its licence down.
LICENCE_STOPS = ("evaluated_on", "evaluates")


@dataclass(frozen=True)
class Finding:
    """Something to look at: `kind` is `integrity`, `disagreement`, `missing`, `drift`, `unclear` or `noncommercial`."""

    kind: str
    ref: str
    text: str


@dataclass(frozen=True)
class Node:
    """An artifact or raw source in the graph of one root; `relation` and `input` say what it is to its child, and
    `relation_basis` how that is known. `disputed` says in words which audit or record speaks against it.

    `inferred` is filled where an audit says so: its reference, the kind of derivation, `p_value` and `tier`.
    """

    ref: str
    kind: str | None
    digest: str | None
    basis: str
    licence: str | None
    origin: str | None = None
    relation: str | None = None
    input: str = ""
    record: Record | None = None
    parents: tuple[Node, ...] = ()
    warnings: tuple[Finding, ...] = field(default=())
    inferred: Mapping[str, Any] = field(default_factory=dict)
    relation_basis: str | None = None
    disputed: str = ""

    def walk(self) -> Iterator[Node]:
        """This node and everything it stands on; a node reached twice comes twice, what it stands on once."""
        return _walk(self, stops=())

    def all_warnings(self) -> list[Finding]:
        """Every warning once, in the order of the walk, and the licences that reach the root."""
        own = [warning for node in self.walk() for warning in node.warnings]
        return list(dict.fromkeys([*own, *_licence_warnings(self)]))

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "ref": self.ref,
            "relation": self.relation,
            "relation_basis": self.relation_basis,
            **({"disputed": self.disputed} if self.disputed else {}),
            "input": self.input,
            "kind": self.kind,
            "digest": self.digest,
            "fingerprint": self.record.fingerprint if self.record else None,
            "stage": self.record.stage if self.record else None,
            "basis": self.basis,
            "licence": self.licence,
            "origin": self.origin,
            **({"inferred": dict(self.inferred)} if self.inferred else {}),
        }
        return plain | {"parents": [parent.to_dict() for parent in self.parents]}


def trace(store: Store, ref: str, *, verify: bool = False) -> Node:
    """The graph below `ref`. With `verify` every byte is read again; what is wrong becomes warnings, not errors.

    Only the root must exist: a parent that is gone is shown as its child recorded it.
    """
    root = store.resolve(ref)
    return _Tracer(store, verify).root(root)


@dataclass(frozen=True)
class Change:
    """Two artifacts at the same place of two graphs, and how their making differs."""

    old: str
    new: str
    differences: tuple[str, ...]


def compare(store: Store, old: str, new: str) -> list[Change]:
    """Where the making of two artifacts differs, from the artifacts down to raw data; what is equal is left out."""
    found: dict[tuple[str, str], Change] = {}
    pending = [(trace(store, old), trace(store, new))]
    while pending:
        left, right = pending.pop(0)
        if left.digest == right.digest and left.record is None:
            continue
        lines = _differences(left, right)
        if lines:
            found.setdefault((left.ref, right.ref), Change(left.ref, right.ref, tuple(lines)))
        others = {parent.input or parent.relation: parent for parent in right.parents}
        mine = [(parent, others.get(parent.input or parent.relation)) for parent in left.parents]
        pending += [(parent, other) for parent, other in mine if other is not None and parent.ref != other.ref]
    return list(found.values())


def _differences(left: Node, right: Node) -> list[str]:
    if left.record is not None and right.record is not None:
        return differences(left.record, right.record)
    return [f"content {(left.digest or 'unknown')[:19]} -> {(right.digest or 'unknown')[:19]}"]


def require_intact(node: Node) -> None:
    """Raises IntegrityError naming every file, record or parent that is not what its record says."""
    wrong = [warning.text for warning in node.all_warnings() if warning.kind == "integrity"]
    if wrong:
        raise IntegrityError("; ".join(wrong), remedy="restore the bytes from a copy, or run the recipe again")


class _Tracer:
    def __init__(self, store: Store, verify: bool) -> None:
        self._store = store
        self._verify = verify
        self._seen: dict[tuple[str, str | None], Node] = {}
        self._open: set[str] = set()
        self._guessed = 0  # inferred edges between the root and where the walk stands

    def root(self, resolved: Resolved) -> Node:
        digest = resolved.record.digest if resolved.record else None
        return self._node(resolved, digest or self._store.digest(resolved))

    def _node(self, resolved: Resolved, digest: str | None) -> Node:
        record = resolved.record
        said = conclusions(self._store, resolved.ref, digest)
        self._open.add(resolved.ref)
        recorded = tuple(self._recorded(parent, said) for parent in (record.parents if record else ()))
        inferred = tuple(self._inferred(one) for one in said if one.parent is not None)
        self._open.discard(resolved.ref)
        above = {name for parent in recorded for one in parent.walk() for name in (one.ref, one.digest) if name}
        if recorded:
            inferred = tuple(
                one if {one.ref, one.digest} & above else replace(one, disputed="no record names it")
                for one in inferred
            )
        differing = disagreements(resolved.ref, record.parents if record else (), above, said)
        warnings = tuple(Finding("disagreement", resolved.ref, text) for text in differing)
        if record is None:
            node = Node(resolved.ref, None, digest, "none", None)
        else:
            origin = record.extra.get("origin")
            node = Node(resolved.ref, record.kind, digest, record.basis, record.licence, origin, record=record)
            warnings = (*self._own_warnings(resolved), *warnings)
        return replace(node, parents=recorded + inferred, warnings=warnings)

    def _recorded(self, parent: Parent, said: list[Conclusion]) -> Node:
        against = [f"{one.audit} does not confirm it: {one.verdict}" for one in said if is_unconfirmed(parent, one)]
        return replace(self._parent(parent), disputed="; ".join(against))

    def _inferred(self, said: Conclusion) -> Node:
        """The reference of an audit as a parent. Files do not say who was first: two audits may infer both ways."""
        assert said.parent is not None
        parent = said.parent
        if parent.ref in self._open:
            node = Node(parent.ref, None, parent.digest, parent.basis, None, relation=parent.relation)
        else:
            self._guessed += 1
            node = self._parent(parent)
            self._guessed -= 1
        return replace(node, basis="inferred", inferred=parent.extra, relation_basis="inferred")

    def _parent(self, parent: Parent) -> Node:
        key = (parent.ref, parent.digest)
        if key not in self._seen:
            self._seen[key] = self._follow(parent)
        return replace(self._seen[key], relation=parent.relation, input=parent.input, relation_basis=parent.basis)

    def _follow(self, parent: Parent) -> Node:
        told = Node(parent.ref, None, parent.digest, parent.basis, parent.licence, parent.origin)
        if parent.ref in self._open:
            if self._guessed:  # an audit's reference was made from its subject: the audit was read the wrong way round
                text = (
                    f"an audit infers a parent that was itself made from {parent.ref}: files do not say who was first"
                )
                return replace(told, warnings=(Finding("disagreement", parent.ref, text),))
            text = f"{parent.ref} stands on itself: its records were edited"
            return replace(told, warnings=(Finding("integrity", parent.ref, text),))
        try:
            resolved = self._store.resolve(parent.ref)
            recorded = resolved.record.digest if resolved.record else ""
            digest = recorded or self._store.digest(resolved)
        except ReferenceNotFound:
            gone = Finding("missing", parent.ref, f"{parent.ref} is no longer here; shown as it was recorded")
            return replace(told, warnings=(gone,))
        except NacreError as error:
            return replace(told, warnings=(Finding("integrity", parent.ref, error.message),))
        node = self._node(resolved, digest)
        node = replace(node, licence=node.licence or parent.licence, origin=node.origin or parent.origin)
        if parent.digest and digest != parent.digest:
            text = f"{parent.ref} holds other bytes ({digest[:19]}) than when it was used ({parent.digest[:19]})"
            node = replace(node, warnings=(*node.warnings, Finding("integrity", parent.ref, text)))
        return node

    def _own_warnings(self, resolved: Resolved) -> Iterator[Finding]:
        try:
            self._store.verify(resolved, deep=self._verify)
        except NacreError as error:
            yield Finding("integrity", resolved.ref, error.message)
        record = resolved.record
        if record is None or record.basis != "witnessed" or not record.stage:
            return
        twins = [one for one in self._twins(record) if one.digest != record.digest]
        for twin in twins:
            text = (
                f"{record.ref} and {twin.ref} were made the same way and differ in content: the step is not repeatable"
            )
            yield Finding("drift", record.ref, text)

    def _twins(self, record: Record) -> Iterator[Record]:
        for version in self._store.versions(record.name):
            if version != record.version:
                try:
                    other = self._store.get(record.name, version).record
                except NacreError:
                    continue  # a broken record of another version is that version's warning
                if other is not None and other.fingerprint == record.fingerprint:
                    yield other


def _licence_warnings(root: Node) -> Iterator[Finding]:
    for node in _content(root):
        kind = concern(node.licence)
        if kind is None or (node.parents and node.licence is None):
            continue
        if node.parents and all(part in _below(node) for part in str(node.licence).split(" AND ")):
            continue  # inherited: said where it comes from
        stated = f"the licence of {node.ref} is {kind}" + (f" ({node.licence})" if node.licence else " (none stated)")
        reach = "" if node is root else f"; it reaches {root.ref}"
        yield Finding(kind, node.ref, stated + reach)


def _content(node: Node) -> Iterator[Node]:
    """The node and what it stands on by content: not what it was measured with."""
    return _walk(node, stops=LICENCE_STOPS)


def _walk(root: Node, stops: Sequence[str]) -> Iterator[Node]:
    """In the order of the tree, each artifact unfolded once: there may be exponentially many ways to reach one."""
    pending, unfolded = [root], set()
    while pending:
        node = pending.pop()
        yield node
        if node.parents and (node.ref, node.digest) not in unfolded:
            unfolded.add((node.ref, node.digest))
            pending += [parent for parent in reversed(node.parents) if parent.relation not in stops]


def _below(node: Node) -> set[str]:
    parts = (str(one.licence).split(" AND ") for one in _content(node) if one is not node and one.licence)
    return {part for group in parts for part in group}
