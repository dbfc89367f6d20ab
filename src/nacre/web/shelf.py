"""The artifacts of a store in short, for lists: each record is read once, and again only where its file changed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from nacre.errors import IntegrityError, NacreError
from nacre.lineage.digest import LOGS_NAME, RECORD_NAME, HashFile
from nacre.lineage.inferred import PREFIX, Audit, Audits
from nacre.lineage.record import Record
from nacre.lineage.store import Resolved, Store

LOG = f"{LOGS_NAME}/metrics.jsonl"
# The figure that says most of an artifact, the first that its record has.
_TELLING = (
    r"accuracy", r"macro_f1", r"(.*_)?f1", r"(.*_)?ndcg@\d+", r"exact_match", r"valid_score", r"valid_accuracy",
    r"valid_(.*_)?(f1|ndcg@\d+)", r"valid_loss", r"(.*_)?perplexity", r"(train_)?loss", r"parameters",
    r"(train_|corpus_)?rows", r"vocabulary", r"examples",
)  # fmt: skip
_REMEDY = "restore lineage.json, or delete the version and run its recipe again"
# What a record sets off whose fields were edited into other types than they have.
_NONSENSE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


@dataclass(frozen=True)
class Edge:
    """A parent as a child recorded it."""

    relation: str
    ref: str
    digest: str | None
    basis: str


@dataclass(frozen=True)
class Entry:
    """One version in short. `fault` says why its record cannot be used; then only name and version are known."""

    name: str
    version: int
    kind: str = ""
    stage: str = ""
    basis: str = ""
    licence: str | None = None
    created: str = ""
    seconds: float = 0.0
    fingerprint: str = ""
    n_bytes: int = 0
    metric: tuple[str, Any] | None = None
    parents: tuple[Edge, ...] = ()
    has_log: bool = False
    fault: str = ""
    audit: Mapping[str, Any] | None = None  # what an audit keeps in its record: its subject and verdicts

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Child:
    """An artifact that was made from another one, and what it is to it."""

    entry: Entry
    edge: Edge


class Shelf:
    """Every version in a store. Safe in threads."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root)
        self._known: dict[tuple[str, int], tuple[tuple[int, int, int], Entry]] = {}
        self._lock = Lock()

    def entries(self) -> list[Entry]:
        """All versions, by name and then the oldest first; a folder without a record is one with a fault."""
        with self._lock:
            found = [self._entry(name, version) for name, version in _addresses(self._store.root / "store")]
            self._known = {(one.name, one.version): self._known[one.name, one.version] for one in found}
        return found

    def _entry(self, name: str, version: int) -> Entry:
        folder = self._store.folder(name, version)
        try:
            state = os.stat(folder / RECORD_NAME)
            identity = (state.st_mtime_ns, state.st_size, state.st_ino)
        except OSError:
            identity = (0, 0, 0)
        known = self._known.get((name, version))
        if known is None or known[0] != identity:
            known = (identity, self._read(name, version, folder))
            self._known[name, version] = known
        return known[1]

    def _read(self, name: str, version: int, folder: Path) -> Entry:
        try:
            record = self._store.get(name, version).record
            assert record is not None  # `get` gives one, or raises
            require_sound(record)
            return _entry_of(record, (folder / LOG).is_file())
        except NacreError as error:
            return Entry(name, version, fault=error.message)
        except (OSError, *_NONSENSE) as error:
            return Entry(name, version, fault=f"{folder / RECORD_NAME}: {error}")


def require_sound(record: Record) -> None:
    """Raises IntegrityError for a record with a field of another type than records have, which no digest covers."""
    cost, texts = record.cost, (record.stage, record.licence, record.fingerprint)
    sound = {
        "metrics": isinstance(record.metrics, Mapping), "config": isinstance(record.config, Mapping),
        "machine": isinstance(record.machine, Mapping), "versions": _are_texts(record.versions),
        "notes": all(isinstance(one, str) for one in record.notes), "created": isinstance(record.created, str),
        "kind": isinstance(record.kind, str), "basis": isinstance(record.basis, str),
        "digest": isinstance(record.digest, str),
        "stage, licence, fingerprint": all(one is None or isinstance(one, str) for one in texts),
        "cost": isinstance(cost.seconds, int | float) and all(
            one is None or isinstance(one, int | float) for one in (cost.tokens, cost.flops, cost.peak_memory_mib)
        ),
        "parents": all(
            isinstance(one.ref, str) and isinstance(one.relation, str) and isinstance(one.basis, str)
            and (one.digest is None or isinstance(one.digest, str)) for one in record.parents
        ),
    }  # fmt: skip
    wrong = [name for name, is_sound in sound.items() if not is_sound]
    if wrong:
        raise IntegrityError(
            f"the record of {record.ref} was edited: no record has such {', '.join(wrong)}",
            remedy=_REMEDY,
        )


def _are_texts(values: object) -> bool:
    return isinstance(values, Mapping) and all(isinstance(one, str) for one in values.values())


class Snapshot(Store):
    """A store looked at once, for one request: a trace asks for the same folders and records at every step.

    A record that holds nonsense raises IntegrityError, as one that was edited does elsewhere. What `verify` does not
    read again, it takes to be as recorded where the size is and nothing was changed since the record was written.
    """

    def __init__(self, store: Store) -> None:
        self.__dict__.update(store.__dict__)  # with its resolvers and the hashes it knows
        self._names: list[str] | None = None
        self._versions: dict[str, list[int]] = {}
        self._found: dict[tuple[str, int], Resolved] = {}

    def names(self) -> list[str]:
        self._names = super().names() if self._names is None else self._names
        return self._names

    def versions(self, name: str) -> list[int]:
        if name not in self._versions:
            self._versions[name] = super().versions(name)
        return self._versions[name]

    def get(self, name: str, version: int) -> Resolved:
        if (name, version) not in self._found:
            self._found[name, version] = self._get(name, version)
        return self._found[name, version]

    def hasher(self, resolved: Resolved) -> HashFile:
        record = resolved.record
        try:
            written = os.stat(resolved.path / RECORD_NAME).st_ctime_ns
        except OSError:
            written = 0
        if record is None or not record.files or not written:
            return super().hasher(resolved)

        def trusted(path: Path) -> tuple[int, str]:
            state, told = path.stat(), record.files.get(path.relative_to(resolved.path).as_posix())
            is_old = max(state.st_ctime_ns, state.st_mtime_ns) <= written  # no program can set the time of a change
            return told if told and told[0] == state.st_size and is_old else self.hashes.hash_file(path)

        return trusted

    def _get(self, name: str, version: int) -> Resolved:
        try:
            found = super().get(name, version)
            assert found.record is not None  # `get` gives one, or raises
            require_sound(found.record)
        except _NONSENSE as error:
            place = self.folder(name, version) / RECORD_NAME
            raise IntegrityError(f"{place} is no lineage record: {error}", remedy=_REMEDY) from error
        return found


def shelf_of(store: Store) -> Shelf:
    """The shelf of a store, the same one at every request."""
    return _shelf(store.root)


@lru_cache(maxsize=8)
def _shelf(root: Path) -> Shelf:
    return Shelf(root)


def children(entries: Sequence[Entry], ref: str, digest: str | None) -> list[Child]:
    """Who was made from this artifact, by its reference or its bytes, newest first."""
    found = [
        Child(one, edge)
        for one in entries
        for edge in one.parents
        if one.ref != ref and (edge.ref == ref or (digest and edge.digest == digest))
    ]
    return sorted(found, key=lambda one: one.entry.created, reverse=True)


def audits_of(entries: Sequence[Entry]) -> Audits:
    """The audits among them, as a trace wants them."""
    return Audits(
        [Audit(one.ref, one.audit) for one in entries if one.audit is not None and one.name.startswith(PREFIX)]
    )


def telling_metric(metrics: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The one figure to show where there is room for one."""
    for pattern in _TELLING:
        for name, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and re.fullmatch(pattern, name):
                return name, value
    return None


def _entry_of(record: Record, has_log: bool) -> Entry:
    audit = record.extra.get("audit")
    return Entry(
        record.name, record.version, str(record.kind), str(record.stage or ""), str(record.basis),
        None if record.licence is None else str(record.licence), str(record.created), record.cost.seconds,
        str(record.fingerprint or ""), sum(size for size, _ in record.files.values()), telling_metric(record.metrics),
        tuple(Edge(str(one.relation), str(one.ref), one.digest, str(one.basis)) for one in record.parents), has_log,
        audit=audit if isinstance(audit, Mapping) else None,
    )  # fmt: skip


def _addresses(top: Path) -> list[tuple[str, int]]:
    """(name, version) of every version folder, sorted; one pass over the folders."""
    found, pending = [], [("", str(top))]
    while pending:
        name, path = pending.pop()
        try:
            items = list(os.scandir(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for item in items:
            if not item.is_dir():
                continue
            if not (item.name.isascii() and item.name.isdecimal()):
                pending.append((f"{name}/{item.name}" if name else item.name, item.path))
            elif name:
                found.append((name, int(item.name)))
    return sorted(found)
