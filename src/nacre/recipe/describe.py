"""What can be said about one artifact or foreign folder: its record, a model's anatomy, a data set's rows and drops."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.errors import NacreError
from nacre.lineage.digest import RECORD_NAME
from nacre.lineage.record import Record
from nacre.lineage.store import Resolved, Store

_ROWS = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz")


@dataclass(frozen=True)
class Description:
    """`verified` is None where the bytes were not compared with the record; `remarks` say what could not be told.

    `rollouts` of a model that was reinforced: the first answers of its first and of its last iteration."""

    ref: str
    path: Path
    kind: str
    digest: str
    n_bytes: int
    n_files: int
    record: Record | None = None
    verified: bool | None = None
    anatomy: Mapping[str, Any] | None = None
    rows: Mapping[str, int] | None = None
    drops: Mapping[str, Any] | None = None
    rollouts: tuple[Mapping[str, Any], ...] = ()
    remarks: tuple[str, ...] = field(default=())

    @property
    def basis(self) -> str:
        return self.record.basis if self.record else "none"

    def to_dict(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "path": str(self.path),
            "kind": self.kind,
            "digest": self.digest,
            "verified": self.verified,
            "basis": self.basis,
            "bytes": self.n_bytes,
            "files": self.n_files,
            "record": self.record.to_dict() if self.record else None,
            "anatomy": self.anatomy,
            "rows": self.rows,
            "drops": self.drops,
            "rollouts": list(self.rollouts),
            "remarks": list(self.remarks),
        }


def describe(store: Store, ref: str, *, verify: bool = False) -> Description:
    """Everything there is to say about `ref`. With `verify` every byte is read and compared with the record."""
    resolved = store.resolve(ref)
    record = resolved.record
    if verify:
        store.verify(resolved, deep=True)
    files = _files(resolved.path)
    kind = record.kind if record else _guess_kind(resolved.path)
    remarks: list[str] = []
    return Description(
        ref=resolved.ref,
        path=resolved.path,
        kind=kind,
        digest=(record.digest if record else "") or store.digest(resolved),
        n_bytes=sum(path.stat().st_size for path in files),
        n_files=len(files),
        record=record,
        verified=True if verify and record is not None and record.digest else None,
        anatomy=_anatomy(resolved, remarks) if kind == "model" else None,
        rows={path.name: _count_rows(path) for path in files if _has_rows(path)} if kind == "dataset" else None,
        drops=_json(resolved.path / "report.json", remarks) if kind == "dataset" and resolved.path.is_dir() else None,
        rollouts=_rollouts(resolved.path / "rollouts.jsonl"),
        remarks=tuple(remarks),
    )


def _rollouts(file: Path, shown: int = 4) -> tuple[Mapping[str, Any], ...]:
    if not file.is_file():
        return ()
    first: list[Mapping[str, Any]] = []
    last: list[Mapping[str, Any]] = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if not first or (row["iteration"] == first[0]["iteration"] and len(first) < shown):
                first.append(row)
            elif row["iteration"] != first[0]["iteration"]:
                last = last if last and row["iteration"] == last[0]["iteration"] else []
                last += [row] if len(last) < shown else []
    return (*first, *last)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [one for one in sorted(path.rglob("*")) if one.is_file()]
    return [one for one in found if one.relative_to(path).parts[0] not in (RECORD_NAME, "logs")]


def _guess_kind(path: Path) -> str:
    """The kind of a folder that has no record, by the files that its ecosystem puts there."""
    if (path / "config.json").exists() or (path.is_dir() and any(path.glob("*.safetensors"))):
        return "model"
    if (path / "tokenizer.json").exists():
        return "tokenizer"
    named = [path] if path.is_file() else list(path.iterdir())
    return "dataset" if any(one.name.endswith((*_ROWS, ".csv", ".parquet")) for one in named) else "unknown"


def _anatomy(resolved: Resolved, remarks: list[str]) -> Mapping[str, Any] | None:
    given = _json(resolved.path / "config.json", remarks)
    if given is None:
        if not remarks:
            remarks.append("no anatomy: there is no config.json")
        return None
    from nacre.kernel.anatomy import anatomy
    from nacre.kernel.hf_config import read_config

    try:
        return dict(anatomy(read_config(dict(given))).to_dict())
    except NacreError as error:  # a foreign architecture: the rest can still be shown
        remarks.append(f"no anatomy: {error.message}")
        return None


def _json(path: Path, remarks: list[str]) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        remarks.append(f"{path.name} is no JSON: {error}")
        return None
    if not isinstance(found, Mapping):
        remarks.append(f"{path.name} holds no JSON object")
        return None
    return found


def _has_rows(path: Path) -> bool:
    return path.name.endswith(_ROWS) and not path.name.lower().startswith(("readme", "licen"))


def _count_rows(path: Path) -> int:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return sum(1 for line in file if line.strip())
