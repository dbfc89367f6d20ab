"""The lineage graph: an artifact's parents walked to raw data, each one compared with what its child recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nacre.errors import IntegrityError, NacreError, ReferenceNotFound
from nacre.lineage.difference import differences
from nacre.lineage.finding import Finding, find
from nacre.lineage.inferred import Audits, Conclusion, audits, disagreements, is_unconfirmed
from nacre.lineage.licence import concern
from nacre.lineage.record import Parent, Record
from nacre.lineage.store import ChangedFile, Resolved, Store

# What an artifact is measured with, or judges, does not hand its licence down.
LICENCE_STOPS = ("evaluated_on", "evaluates")


@dataclass(frozen=True)
class Node:
    """An artifact or raw source in the graph of one root; `relation` and `input` say what it is to its child, and
    `relation_basis` how that is known. `disputes` say which audit or record speaks against it.

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
    disputes: tuple[Finding, ...] = ()

    @property
    def disputed(self) -> str:
        """The disputes in words; empty where there is none."""
        return "; ".join(one.text for one in self.disputes)

    def walk(self) -> Iterator[Node]:
        """This node and everything it stands on; a node reached twice comes twice, what it stands on once."""
        return _walk(self, stops=())

    def all_warnings(self) -> list[Finding]:
        """Every warning once, in the order of the walk, and the licences that reach the root."""
        own = [warning for node in self.walk() for warning in node.warnings]
        return list(dict.fromkeys([*own, *_licence_warnings(self)]))

    def to_dict(self) -> dict[str, Any]:
        """A JSON object. An artifact that was told before is not unfolded again: `parents_above` says so, and `ref`
        and `digest` where."""
        top = self._plain()
        pending, told = [(self, top)], set()
        while pending:
            node, plain = pending.pop()
            key = (node.ref, node.digest)
            if node.parents and key in told:
                plain["parents_above"] = True
                continue
            told.add(key)
            plain["parents"] = [parent._plain() for parent in node.parents]
            pending += reversed(list(zip(node.parents, plain["parents"], strict=True)))
        return top

    def _plain(self) -> dict[str, Any]:
        """The artifact itself, its parents still to be filled in."""
        return {
            "ref": self.ref,
            "relation": self.relation,
            "relation_basis": self.relation_basis,
            **({"disputed": self.disputed} if self.disputes else {}),
            "input": self.input,
            "kind": self.kind,
            "digest": self.digest,
            "fingerprint": self.record.fingerprint if self.record else None,
            "stage": self.record.stage if self.record else None,
            "basis": self.basis,
            "licence": self.licence,
            "origin": self.origin,
            **({"inferred": dict(self.inferred)} if self.inferred else {}),
            "parents": [],
        }


def trace(store: Store, ref: str, *, verify: bool = False, known_audits: Audits | None = None) -> Node:
    """The graph below `ref`. With `verify` every byte is read again; what is wrong becomes warnings, not errors.

    Only the root must exist: a parent that is gone is shown as its child recorded it. `known_audits` are those of the
    store where the caller has them at hand; otherwise they are read.
    """
    root = store.resolve(ref)
    return _Tracer(store, verify, audits(store) if known_audits is None else known_audits).root(root)


@dataclass(frozen=True)
class Change:
    """Two artifacts at the same place of two graphs, and how their making differs."""

    old: str
    new: str
    differences: tuple[str, ...]


def compare(store: Store, old: str, new: str) -> list[Change]:
    """Where the making of two artifacts differs, from the artifacts down to raw data; what is equal is left out."""
    found: dict[tuple[str, str], Change] = {}
    known = audits(store)
    pending = deque([(trace(store, old, known_audits=known), trace(store, new, known_audits=known))])
    seen = set()
    while pending:
        left, right = pending.popleft()
        pair = (left.ref, left.digest, right.ref, right.digest)
        if pair in seen or (left.digest == right.digest and left.record is None):
            continue
        seen.add(pair)
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


# Where the walk stands: it gives the step that it waits for, and is sent the node that came of it.
_Step = Generator["_Step", Node, Node]


def _run(first: _Step) -> Node:
    """Runs a step and those it waits for; not by recursion, for a chain of parents may be longer than the stack."""
    waiting = [first]
    step: _Step | None = None
    node: Node | None = None
    while True:
        try:
            step = next(waiting[-1]) if node is None else waiting[-1].send(node)
        except StopIteration as done:
            node = done.value
            waiting.pop()
            if not waiting:
                return done.value  # type: ignore[no-any-return]
        else:
            node = None
            waiting.append(step)


class _Tracer:
    def __init__(self, store: Store, verify: bool, known_audits: Audits) -> None:
        self._store = store
        self._verify = verify
        self._audits = known_audits
        self._seen: dict[tuple[str, str | None], Node] = {}
        self._open: set[str] = set()
        self._guessed = 0  # inferred edges between the root and where the walk stands

    def root(self, resolved: Resolved) -> Node:
        digest = resolved.record.digest if resolved.record else None
        return _run(self._node(resolved, digest or self._store.digest(resolved)))

    def _node(self, resolved: Resolved, digest: str | None) -> _Step:
        record = resolved.record
        said = self._audits.conclusions(resolved.ref, digest)
        self._open.add(resolved.ref)
        recorded, inferred = [], []
        for parent in record.parents if record else ():
            recorded.append((yield self._recorded(parent, said)))
        for one in said:
            if one.parent is not None:
                inferred.append((yield self._inferred(one.parent)))
        self._open.discard(resolved.ref)
        above = _names_above(recorded) if said else set()
        if recorded:
            unnamed = (find("disagreement", resolved.ref, "unnamed"),)
            inferred = [one if {one.ref, one.digest} & above else replace(one, disputes=unnamed) for one in inferred]
        warnings = tuple(disagreements(resolved.ref, record.parents if record else (), above, said))
        if record is None:
            node = Node(resolved.ref, None, digest, "none", None)
        else:
            origin = record.extra.get("origin")
            node = Node(resolved.ref, record.kind, digest, record.basis, record.licence, origin, record=record)
            warnings = (*self._own_warnings(resolved), *warnings)
        return replace(node, parents=(*recorded, *inferred), warnings=warnings)

    def _recorded(self, parent: Parent, said: Sequence[Conclusion]) -> _Step:
        against = [
            find("disagreement", parent.ref, "unconfirmed", audit=one.audit, verdict=one.verdict)
            for one in said
            if is_unconfirmed(parent, one)
        ]
        return replace((yield self._parent(parent)), disputes=tuple(against))

    def _inferred(self, parent: Parent) -> _Step:
        """The reference of an audit as a parent. Files do not say who was first: two audits may infer both ways."""
        if parent.ref in self._open:
            node = Node(parent.ref, None, parent.digest, parent.basis, None, relation=parent.relation)
        else:
            self._guessed += 1
            node = yield self._parent(parent)
            self._guessed -= 1
        return replace(node, basis="inferred", inferred=parent.extra, relation_basis="inferred")

    def _parent(self, parent: Parent) -> _Step:
        key = (parent.ref, parent.digest)
        if key not in self._seen:
            self._seen[key] = yield self._follow(parent)
        return replace(self._seen[key], relation=parent.relation, input=parent.input, relation_basis=parent.basis)

    def _follow(self, parent: Parent) -> _Step:
        told = Node(parent.ref, None, parent.digest, parent.basis, parent.licence, parent.origin)
        if parent.ref in self._open:
            if self._guessed:  # an audit's reference was made from its subject: the audit was read the wrong way round
                return replace(told, warnings=(find("disagreement", parent.ref, "both_ways", ref=parent.ref),))
            return replace(told, warnings=(find("integrity", parent.ref, "circle", ref=parent.ref),))
        try:
            resolved = self._store.resolve(parent.ref)
            recorded = resolved.record.digest if resolved.record else ""
            digest = recorded or self._store.digest(resolved)
        except ReferenceNotFound:
            return replace(told, warnings=(find("missing", parent.ref, "gone", ref=parent.ref),))
        except NacreError as error:
            return replace(told, warnings=(_wrong(parent.ref, error),))
        node = yield self._node(resolved, digest)
        node = replace(node, licence=node.licence or parent.licence, origin=node.origin or parent.origin)
        if parent.digest and digest != parent.digest:
            now, then = digest[:19], parent.digest[:19]
            other = find("integrity", parent.ref, "other_bytes", ref=parent.ref, now=now, then=then)
            node = replace(node, warnings=(*node.warnings, other))
        return node

    def _own_warnings(self, resolved: Resolved) -> Iterator[Finding]:
        try:
            self._store.verify(resolved, deep=self._verify)
        except NacreError as error:
            yield _wrong(resolved.ref, error)
        record = resolved.record
        if record is None or record.basis != "witnessed" or not record.stage:
            return
        twins = [one for one in self._twins(record) if one.digest != record.digest]
        for twin in twins:
            yield find("drift", record.ref, "twin", ref=record.ref, twin=twin.ref)

    def _twins(self, record: Record) -> Iterator[Record]:
        for version in self._store.versions(record.name):
            if version != record.version:
                try:
                    other = self._store.get(record.name, version).record
                except NacreError:
                    continue  # a broken record of another version is that version's warning
                if other is not None and other.fingerprint == record.fingerprint:
                    yield other


def _wrong(ref: str, error: NacreError) -> Finding:
    """What was found instead of what a record says."""
    if not isinstance(error, ChangedFile):
        return Finding("integrity", ref, error.message)
    values = {"ref": error.ref, "file": error.file, "folder": error.folder}
    return Finding("integrity", ref, error.message, f"file_{error.change}", values)


def _names_above(parents: Sequence[Node]) -> set[str]:
    """References and digests of these and of all they stand on."""
    return {name for parent in parents for one in parent.walk() for name in (one.ref, one.digest) if name}


def _licence_warnings(root: Node) -> Iterator[Finding]:
    for node in _content(root):
        kind = concern(node.licence)
        if kind is None or (node.parents and node.licence is None):
            continue
        if node.parents and all(part in _below(node) for part in str(node.licence).split(" AND ")):
            continue  # inherited: said where it comes from
        values = {"ref": node.ref, "licence": node.licence} if node.licence else {"ref": node.ref}
        stated = f"licence_{kind}" if node.licence else "licence_none"
        if node is root:
            yield find(kind, node.ref, stated, **values)
        else:
            yield find(kind, node.ref, f"{stated}_reaches", **values, root=root.ref)


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
