"""Opening what is audited: a REF becomes a `Subject`, whatever it names and whatever is wrong with it.

What cannot be used is the reason in `missing`; only where nothing at all can be read is there an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.errors import CheckpointError, NacreError, ReferenceNotFound
from nacre.lifecycle.audit.readers import files, folder, index
from nacre.lifecycle.audit.readers.files import shown
from nacre.lifecycle.audit.readers.ranges import RangeSource
from nacre.lifecycle.audit.readers.strict_json import parse_object
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tensors import TensorInfo, TensorSource
from nacre.lineage.digest import RECORD_NAME
from nacre.lineage.record import Record
from nacre.lineage.store import Resolved, Store
from nacre.recipe.references import open_store

CONFIG, ADAPTER = "config.json", "adapter_config.json"
_ABSENT = {
    "kernel": "there is neither a config nor a tensor to tell it from",
    "tokenizer": "there is no tokenizer file",
    "weights": "there are no weights",
    "data": "there is no data set",
}
_LARGEST_RECORD = 64 << 20


@dataclass
class _Parts:
    """What was found so far."""

    config: dict[str, Any] | None = None
    infos: Mapping[str, TensorInfo] = field(default_factory=dict)
    tensors: TensorSource | None = None
    tokenizer: Path | None = None
    data: Path | None = None
    adapter: dict[str, Any] | None = None
    base: Path | None = None
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_subject(ref: str | Path, store: Store | None = None) -> Subject:
    """What `ref` names, opened for an audit: a path, `name@version` of the store, `model:NAME`.

    `tokenizer` is the main file of the tokenizer (others may lie beside it), `data` a file or folder of rows.
    Raises ReferenceNotFound where `ref` names nothing, and CheckpointError where nothing of it can be read.
    """
    parts = _Parts()
    resolved = _resolve(str(ref), store if store is not None else open_store(), parts.notes)
    if resolved.path.is_dir():
        _open_folder(resolved.path, parts)
    else:
        _open_file(resolved.path, parts)
    return _subject(resolved.ref, resolved.path, resolved.record, parts)


def _resolve(ref: str, store: Store, notes: list[str]) -> Resolved:
    """What `ref` names; a lineage record that cannot be trusted is noted and left out."""
    path = Path(ref).expanduser()
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise ReferenceNotFound(f"{shown(ref)!r} is no path: {error}", remedy="check the path") from error
    try:
        if exists and (path / RECORD_NAME).exists():
            parse_object(files.read_whole(files.inside(path, RECORD_NAME), _LARGEST_RECORD), path / RECORD_NAME)
        return store.resolve(ref)
    except ReferenceNotFound:
        raise
    except NacreError as error:
        if not exists:
            raise
        notes.append(f"its lineage record is left out: {error.message}")
        return Resolved(str(path.absolute()), path.absolute())


def _open_folder(path: Path, parts: _Parts) -> None:
    names = folder.listing(path)
    if CONFIG in names:
        parts.config = _config(path, CONFIG, parts)
    if ADAPTER in names:
        parts.adapter = _config(path, ADAPTER, parts)
    _take(folder.find_weights(path, names), parts)
    parts.tokenizer, reason = folder.find_tokenizer(path, names)
    if reason is not None:
        parts.missing["tokenizer"] = reason


def _config(path: Path, name: str, parts: _Parts) -> dict[str, Any] | None:
    try:
        return folder.read_config(files.inside(path, name), parts.notes)
    except CheckpointError as error:
        parts.notes.append(error.message)
        parts.missing["kernel"] = error.message
        return None


def _take(found: index.Found | None, parts: _Parts) -> None:
    if found is None:
        return
    parts.infos = found.names
    parts.notes += found.notes
    if found.problem is not None:
        parts.missing["weights"] = found.problem
    else:
        parts.tensors = RangeSource(found.extents)


def _open_file(path: Path, parts: _Parts) -> None:
    if path.name.endswith(".index.json"):
        parts.infos = index.names_only(index.read_index(path))
        parts.missing["weights"] = f"{shown(path.name)} alone names {len(parts.infos)} tensors and holds none"
    elif path.suffix == ".json":
        parts.config = folder.read_config(path, parts.notes)
    else:
        _take(index.read_files([path], folder.reader_of(path)), parts)


def _subject(ref: str, path: Path, record: Record | None, parts: _Parts) -> Subject:
    """The subject of its parts; CheckpointError where there are none."""
    there = {
        "kernel": parts.config is not None or bool(parts.infos),
        "tokenizer": parts.tokenizer is not None,
        "weights": parts.tensors is not None,
        "data": parts.data is not None,
    }
    if not any(there.values()) and parts.adapter is None:
        why = "; ".join([*parts.missing.values(), *parts.notes][:4]) or "it holds no config, weights, tokenizer or data"
        raise CheckpointError(
            f"nothing of {shown(ref)} can be read: {why}", remedy="give a model, a tokenizer, an adapter or a data set"
        )
    missing = {stage: parts.missing.get(stage, _ABSENT[stage]) for stage, is_there in there.items() if not is_there}
    return Subject(
        ref=ref,
        path=path,
        config=parts.config,
        infos=parts.infos,
        tensors=parts.tensors,
        tokenizer=parts.tokenizer,
        data=parts.data,
        adapter=parts.adapter,
        base=parts.base,
        record=record,
        missing=missing,
        notes=tuple(parts.notes),
    )
