"""Opening what is audited: a REF becomes a `Subject`, whatever it names and whatever is wrong with it.

What cannot be used is the reason in `missing`; only where nothing at all can be read is there an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.data.read import FORMATS, data_files, read, suffix_of
from nacre.errors import CheckpointError, NacreError, ReferenceNotFound
from nacre.lifecycle.audit.readers import files, folder, gguf, index
from nacre.lifecycle.audit.readers.adapter import AdaptedSource
from nacre.lifecycle.audit.readers.files import shown
from nacre.lifecycle.audit.readers.joined import JoinedSource, joined_infos, parts_of
from nacre.lifecycle.audit.readers.ranges import RangeSource
from nacre.lifecycle.audit.readers.strict_json import parse_object
from nacre.lifecycle.audit.said import clauses, say
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tensors import TensorInfo, TensorSource
from nacre.lineage.digest import RECORD_NAME
from nacre.lineage.store import Resolved, Store
from nacre.recipe.references import open_store

CONFIG, ADAPTER = "config.json", "adapter_config.json"
_ABSENT = {
    "kernel": "there is neither a config nor a tensor to tell it from",
    "tokenizer": "there is no tokenizer file",
    "weights": "there are no weights",
    "data": "there is no data set",
}
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
_TELLING = {"index": {"weight_map"}, "adapter": {"peft_type"}, "tokenizer": {"model", "added_tokens"}}
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
    made_for: bool | None = None
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_subject(ref: str | Path, store: Store | None = None, base: str | Path | None = None) -> Subject:
    """What `ref` names, opened for an audit: a path, `name@version` of the store, `model:NAME`, `data:NAME`.

    `tokenizer` is the main file of the tokenizer (others may lie beside it; a GGUF file holds its own), `data` a file
    or folder of rows. An adapter is opened as the model that it makes of its base: `base`, else the local path that it
    names. Raises ReferenceNotFound where `ref` names nothing, and CheckpointError where nothing of it can be read.
    """
    store = store if store is not None else open_store()
    resolved, parts = _found(ref, store)
    if parts.adapter is not None and parts.config is None:
        _put_on_base(resolved.path, parts, store, base)
    return _subject(resolved, parts)


def _found(ref: str | Path, store: Store) -> tuple[Resolved, _Parts]:
    parts = _Parts()
    resolved = _resolve(str(ref), store, parts.notes)
    if resolved.path.is_dir():
        _open_folder(resolved.path, parts)
    else:
        _open_file(resolved.path, parts)
    return resolved, parts


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
        notes.append(say("its lineage record is left out: {reason}", reason=error.message))
        return Resolved(str(path.absolute()), path.absolute())


def _open_folder(path: Path, parts: _Parts) -> None:
    names = folder.listing(path)
    if CONFIG in names:
        parts.config = _config(path, CONFIG, parts)
    if ADAPTER in names:
        parts.adapter = _config(path, ADAPTER, parts)
    _take(folder.find_weights(path, names), parts)
    packed = [name for name in names if name.endswith(".gguf")]
    if packed and not parts.infos and not (path / packed[0]).is_symlink():
        _take_gguf(path / packed[0], parts)
    if parts.tokenizer is None:
        parts.tokenizer, reason = folder.find_tokenizer(path, names)
        if reason is not None:
            parts.missing["tokenizer"] = reason
    if parts.config is None and parts.adapter is None and not parts.infos and parts.tokenizer is None:
        _take_data(path, parts)


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
    elif found.extents:
        parts.tensors = RangeSource(found.extents)
    _join(parts)
    packed = sorted({extent.path for extent in found.extents.values() if extent.path.suffix == ".gguf"})
    if packed:
        _take_gguf(packed[0], parts)


def _join(parts: _Parts) -> None:
    """Matrices that lie in several tensors of their rows are one tensor from here on."""
    pieces = parts_of(parts.infos)
    if pieces:
        parts.infos = joined_infos(parts.infos, pieces)
        if parts.tensors is not None:
            parts.tensors = JoinedSource(parts.tensors, pieces)
        template = "{n} matrices lie in {all} tensors of their rows: read as matrices"
        parts.notes.append(say(template, n=len(pieces), all=sum(map(len, pieces.values()))))


def _take_gguf(path: Path, parts: _Parts) -> None:
    """A GGUF file tells its config and holds its tokenizer, also where its tensors cannot be read; what lies beside it
    in files of its own goes first."""
    try:
        metadata = gguf.read_metadata(path)
    except CheckpointError as error:
        parts.missing.setdefault("weights", error.message)
        return
    if parts.config is None:
        parts.config = gguf.config_of(metadata)
    if metadata.get("tokenizer.ggml.tokens"):
        parts.tokenizer = path


def _open_file(path: Path, parts: _Parts) -> None:
    kind = _kind(path)
    if kind == "index":
        parts.infos = index.names_only(index.read_index(path))
        _join(parts)
        template = "{file} alone names {n} tensors and holds none"
        parts.missing["weights"] = say(template, file=shown(path.name), n=len(parts.infos))
    elif kind == "config":
        parts.config = folder.read_config(path, parts.notes)
    elif kind == "adapter":
        parts.adapter = folder.read_config(path, parts.notes)
    elif kind == "tokenizer":
        if files.size_of(path) == 0:
            raise files.damaged(path, "holds no bytes")
        parts.tokenizer = path
    elif kind == "data":
        _take_data(path, parts)
    else:
        _take(index.read_files([path], folder.reader_of(path)), parts)
        if path.suffix == ".gguf" and not parts.infos:
            reason = say("{file} holds a vocabulary and no tensors", file=shown(path.name))
            parts.missing.setdefault("weights", reason)
            _take_gguf(path, parts)


def _kind(path: Path) -> str:
    """What a lone file is, by its name; JSON of another name by its keys."""
    name = path.name.lower()
    if name.endswith(".index.json"):
        return "index"
    is_vocabulary = "vocab" in name and name.endswith(".txt")
    if is_vocabulary or name in _TOKENIZER_FILES or name.endswith((".model", ".tiktoken")):
        return "tokenizer"
    if name.endswith(".json"):
        keys = folder.read_config(path, []).keys()
        return next((kind for kind, telling in _TELLING.items() if telling <= keys), "config")
    return "data" if suffix_of(path) in FORMATS else "weights"


def _take_data(path: Path, parts: _Parts) -> None:
    """A file or folder of rows, when the first row can be read."""
    try:
        found = data_files(path) if path.is_dir() else [path]
        for file in found:
            if path.is_dir():
                files.inside(path, file.relative_to(path).as_posix())
            files.size_of(file)
        next(read(path))
        parts.data = path
    except NacreError as error:
        parts.missing["data"] = error.message
    except OSError as error:
        parts.missing["data"] = say("{file} cannot be read: {why}", file=shown(path.name), why=error.strerror)


def _put_on_base(path: Path, parts: _Parts, store: Store, given: str | Path | None) -> None:
    """Opens the adapter's base and reads the two as one model; `missing` says why where that fails."""
    adapter, named = parts.tensors, (parts.adapter or {}).get("base_model_name_or_path")
    parts.tensors = None
    try:
        base, under = _found(_base(path, named, given), store)
        if under.adapter is not None and under.config is None:
            what = say("{ref} is an adapter itself", ref=shown(base.ref))
            raise CheckpointError(what, remedy="merge it into its base first")
    except NacreError as error:
        words = "an adapter without its base: {reason}; give it with --base, or merge the two and audit the result"
        reason = say(words, reason=error.message)
        parts.missing["weights"] = parts.missing["kernel"] = reason
        return
    parts.base, parts.config, parts.infos = base.path, under.config, under.infos
    parts.tokenizer = parts.tokenizer or under.tokenizer
    if under.tensors is None:
        reason = say("the adapter's base: {reason}", reason=under.missing.get("weights", _ABSENT["weights"]))
        parts.missing["weights"] = reason
    elif adapter is not None:
        try:
            made = AdaptedSource(under.tensors, adapter, parts.adapter or {})
            _take_made(path, base, made, parts)
        except CheckpointError as error:
            parts.missing["weights"] = say("{reason}: {remedy}", reason=error.message, remedy=error.remedy)


def _take_made(path: Path, base: Resolved, made: AdaptedSource, parts: _Parts) -> None:
    """The model that an adapter makes of the base. CheckpointError where it was made for another."""
    from nacre.lifecycle.audit.readers.made_for import was_made_for

    parts.made_for = was_made_for(path, made.adapter.infos, base.path)
    if parts.made_for is False:
        raise CheckpointError(
            say("the adapter was made for a model with other weights than {ref}", ref=shown(base.ref)),
            remedy="give the base that the adapter was made for",
        )
    parts.tensors, parts.infos = made, made.infos
    parts.notes.append(say("read as the model that the adapter makes of {ref}", ref=shown(base.ref)))


def _base(path: Path, named: Any, given: str | Path | None) -> str | Path:
    """What to open as the base: what was given, else the folder that the adapter's config names."""
    if given is not None:
        return given
    if not isinstance(named, str) or not named:
        raise CheckpointError("its config names none", remedy="give it: --base")
    home = path if path.is_dir() else path.parent
    for place in (Path(named).expanduser(), home / named):
        try:
            if place.is_dir() and place.resolve() != home.resolve():
                return place
        except (OSError, ValueError, RuntimeError):  # a name that is no path, or a loop of links
            continue
    raise CheckpointError(say("{ref} is not on this machine", ref=shown(named)), remedy="give it: --base")


def _subject(resolved: Resolved, parts: _Parts) -> Subject:
    """The subject of its parts; CheckpointError where there are none."""
    there = {
        "kernel": parts.config is not None or (bool(parts.infos) and parts.adapter is None),
        "tokenizer": parts.tokenizer is not None,
        "weights": parts.tensors is not None,
        "data": parts.data is not None,
    }
    if not any(there.values()) and parts.adapter is None:
        why = clauses([*parts.missing.values(), *parts.notes][:4]) or "it holds no config, weights, tokenizer or data"
        raise CheckpointError(
            say("nothing of {ref} can be read: {why}", ref=shown(resolved.ref), why=why),
            remedy="give a model, a tokenizer, an adapter or a data set",
        )
    missing = {stage: parts.missing.get(stage, _ABSENT[stage]) for stage, is_there in there.items() if not is_there}
    return Subject(
        ref=resolved.ref,
        path=resolved.path,
        config=parts.config,
        infos=parts.infos,
        tensors=parts.tensors,
        tokenizer=parts.tokenizer,
        data=parts.data,
        adapter=parts.adapter,
        base=parts.base,
        made_for=parts.made_for,
        record=resolved.record,
        missing=missing,
        notes=tuple(parts.notes),
    )
