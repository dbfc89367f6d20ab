"""The lineage record: what an artifact is, what it was made from, how, and how we know.

Three identities are kept apart. `ref` (name@version) is an address, `digest` is the content, `fingerprint` is the way
it was made. Loading and saving a record keeps every field, those of later versions of Nacre included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nacre.errors import IntegrityError
from nacre.lineage.digest import RECORD_NAME, Entry, digest_entries, digest_json
from nacre.lineage.durable import write_atomic

KINDS = ("dataset", "tokenizer", "model", "report", "predictions", "engine", "prompt", "index", "rung")
RELATIONS = (
    "calls", "indexes", "trained_on", "finetuned_from", "distilled_from", "quantized_from", "pruned_from",
    "merged_from", "aligned_with", "tokenized_by", "made_from", "evaluated_on", "evaluates",
)  # fmt: skip
# witnessed: Nacre ran the step; declared: a card or config says so; inferred: an audit concluded it; none: nobody said.
BASES = ("witnessed", "declared", "inferred", "none")


@dataclass(frozen=True)
class Parent:
    """What an artifact was made from. `input` is the stage's name for it, `origin` where its bytes came from first."""

    relation: str
    ref: str
    digest: str | None = None
    licence: str | None = None
    origin: str | None = None
    basis: str = "witnessed"
    input: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What making it took; `tokens` and `flops` are None where the step does not count them."""

    seconds: float = 0.0
    tokens: int | None = None
    flops: float | None = None
    peak_memory_mib: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One artifact's lineage. `files` maps each content file to (size, SHA-256), so that a changed one can be named."""

    name: str
    version: int
    kind: str
    digest: str
    fingerprint: str | None = None
    basis: str = "witnessed"
    parents: tuple[Parent, ...] = ()
    stage: str | None = None
    revision: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    cost: Cost = field(default_factory=Cost)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    created: str = ""
    notes: tuple[str, ...] = ()
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    def entries(self) -> tuple[Entry, ...]:
        return tuple(Entry(path, size, value) for path, (size, value) in self.files.items())

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; unknown fields that were loaded stand where they stood."""
        plain = _flat(self)
        plain["parents"] = [_flat(parent) for parent in self.parents]
        plain["cost"] = _flat(self.cost)
        return plain


def fingerprint(
    stage: str, revision: int, config: Mapping[str, Any], seed: int | None, parents: Sequence[Parent]
) -> str:
    """How something is made: stage, its revision, resolved config, seed, and the digest that filled each input."""
    inputs = sorted([parent.input, parent.relation, parent.digest] for parent in parents)
    return digest_json({"stage": stage, "revision": revision, "config": config, "seed": seed, "inputs": inputs})


def verify_record(record: Record) -> None:
    """Raises IntegrityError when a record contradicts itself: an edited config, parent, seed, stage or file list."""
    if record.files and digest_entries(record.entries()) != record.digest:
        raise IntegrityError(
            f"the record of {record.ref} was edited: its list of files does not add up to its digest",
            remedy="restore lineage.json, or delete the version and run its recipe again",
        )
    if record.basis != "witnessed" or record.fingerprint is None or record.stage is None:
        return
    if fingerprint(record.stage, record.revision, record.config, record.seed, record.parents) != record.fingerprint:
        raise IntegrityError(
            f"the record of {record.ref} was edited: stage, config, seed and parents do not give its fingerprint",
            remedy="restore lineage.json, or delete the version and run its recipe again",
        )


def read(folder: Path) -> Record:
    """The record of the artifact in `folder`; raises IntegrityError when it is absent or unreadable."""
    path = folder / RECORD_NAME
    try:
        plain = json.loads(path.read_bytes())
        return from_dict(plain)
    except FileNotFoundError:
        raise IntegrityError(f"{path} does not exist", remedy="the folder is no artifact of a Nacre store") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{path} is no lineage record: {error}", remedy="restore it, or delete the folder and run its recipe again"
        ) from error


def write(folder: Path, record: Record) -> None:
    """Writes the record, by atomic rename. Call it last: its presence means that the artifact is complete."""
    text = json.dumps(record.to_dict(), ensure_ascii=False, indent=1, allow_nan=True)
    write_atomic(folder / RECORD_NAME, (text + "\n").encode())


def from_dict(plain: Mapping[str, Any]) -> Record:
    """The record that `to_dict` gave; raises TypeError or ValueError on a shape that is no record."""
    values = _known(Record, plain)
    values["parents"] = tuple(Parent(**_known(Parent, parent)) for parent in values.get("parents", ()))
    values["cost"] = Cost(**_known(Cost, values.get("cost", {})))
    values["notes"] = tuple(values.get("notes", ()))
    values["files"] = {path: (int(size), str(value)) for path, (size, value) in values.get("files", {}).items()}
    return Record(**values)


def _flat(item: Record | Parent | Cost) -> dict[str, Any]:
    plain = asdict(item)
    return plain | dict(plain.pop("extra"))


def _known(kind: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(kind)} - {"extra"}
    values = {key: value for key, value in plain.items() if key in names}
    values["extra"] = {key: value for key, value in plain.items() if key not in names}
    return values
