"""The data catalogue: named sets with licence, source and checksums, and where they are on this machine.

A set is looked for in `$NACRE_DATA`, in `../shared/data` beside the working folder and beside the repository, and in
the cache (`$NACRE_CACHE/data`, else `~/.cache/nacre/data`). The facts stand in `catalogue/sets.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nacre.data.download import Upstream, download
from nacre.errors import DataError, IntegrityError, ReferenceNotFound, closest
from nacre.lineage.digest import Entry, digest_entries, hash_file
from nacre.lineage.record import Record
from nacre.lineage.store import Resolved
from nacre.progress import Progress, Silent

HERE = Path(__file__).parent
DATA_VARIABLE, CACHE_VARIABLE = "NACRE_DATA", "NACRE_CACHE"
REMARKS = {
    "noncommercial": "for research or non-commercial use only: not in a release or a published model",
    "unclear": "the source states no licence: ask before passing it on, also inside a model",
    "mixed": "licences differ by file: see its README",
}


@dataclass(frozen=True)
class DataFile:
    """One file of a set, by its path in the set's folder. `upstream` says where the same bytes can be downloaded."""

    path: str
    n_bytes: int
    sha256: str
    rows: int | None = None
    licence: str | None = None
    upstream: Upstream | None = None


@dataclass(frozen=True)
class DataSet:
    """A set of the catalogue; `path` is its folder on this machine, None where it is absent."""

    name: str
    aliases: tuple[str, ...]
    task: str
    about: str
    languages: tuple[str, ...]
    licence: str
    licence_class: str
    source: str
    files: tuple[DataFile, ...]
    embedded: bool = False
    path: Path | None = None

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)

    @property
    def downloadable(self) -> bool:
        """Whether every file can be had from its public source unchanged."""
        return bool(self.files) and all(file.upstream for file in self.files)

    @property
    def remark(self) -> str | None:
        """What a user of the set must know about its licence; None for open ones."""
        return REMARKS.get(self.licence_class)


def entries() -> list[DataSet]:
    """Every set of the catalogue, by name, each with its folder where it is on this machine."""
    return [_located(one) for one in sorted(_catalogue().values(), key=lambda one: one.name)]


def found() -> dict[str, Path]:
    """Name -> folder of the sets that are on this machine, without those that come with the package."""
    return {one.name: one.path for one in entries() if one.path is not None and not one.embedded}


def describe(name: str) -> DataSet:
    """The entry of a name or alias, present or not. Raises ReferenceNotFound naming the closest."""
    by_name = _catalogue()
    for one in by_name.values():
        if name == one.name or name in one.aliases:
            return _located(one)
    known = [*by_name, *(alias for one in by_name.values() for alias in one.aliases)]
    raise ReferenceNotFound(f"no data set {name!r} in the catalogue", remedy=closest(name, known))


def find(name: str) -> DataSet:
    """A set that is on this machine with all its files. Raises ReferenceNotFound saying what to do when it is not."""
    found = describe(name)
    if found.path is None:
        raise ReferenceNotFound(f"the data set {found.name} is not on this machine", remedy=_how_to_get(found))
    return found


def check(name: str, progress: Progress | None = None) -> DataSet:
    """Compares every file with its SHA-256. Raises IntegrityError naming the first file that differs."""
    found = find(name)
    sink = progress or Silent()
    for number, file in enumerate(found.files, start=1):
        _verify(_folder(found) / file.path, file)
        sink.update(number, len(found.files), file=file.path)
    return found


def fetch(name: str, progress: Progress | None = None) -> DataSet:
    """The set, downloaded into the cache when it is absent and its files are unchanged upstream.

    Each file is verified before it gets its name; an interrupted download leaves nothing. Raises ReferenceNotFound for
    a set that was converted from its source and cannot be rebuilt by download.
    """
    found = describe(name)
    if found.path is not None:
        return found
    if not found.downloadable:
        return find(name)
    folder = _cache() / found.name
    sink = progress or Silent()
    for number, file in enumerate(found.files, start=1):
        if file.upstream is None:
            continue
        target = folder / file.path
        if not (target.is_file() and hash_file(target) == (file.n_bytes, file.sha256)):
            download(file.upstream, target, file.n_bytes, file.sha256)
        sink.update(number, len(found.files), file=file.path)
    return find(name)


def resolve(rest: str) -> Resolved:
    """What `data:NAME[/SPLIT]` names: the set's folder, or the file (or folder) in it called SPLIT.

    Its record is declared, not witnessed: licence and origin as the catalogue states them, digest of the stated
    checksums (empty for embedded sets, whose bytes come with the code). Raises ReferenceNotFound.
    """
    name, _, split = rest.partition("/")
    found = find(name)
    folder = _folder(found)
    if found.embedded:
        return Resolved(f"data:{rest}", _part(found, split) if split else folder, _record(found, rest))
    if not split:
        files = [Entry(file.path, file.n_bytes, file.sha256) for file in found.files]
        return Resolved(f"data:{rest}", folder, _record(found, rest, files=files))
    path = _part(found, split)
    inside = path.relative_to(folder).as_posix()
    if path.is_dir():
        prefix = inside + "/"
        files = [
            Entry(file.path.removeprefix(prefix), file.n_bytes, file.sha256)
            for file in found.files
            if file.path.startswith(prefix)
        ]
        return Resolved(f"data:{rest}", path, _record(found, rest, files=files))
    stated = next(file for file in found.files if file.path == inside)
    return Resolved(
        f"data:{rest}", path, _record(found, rest, digest=f"sha256:{stated.sha256}", licence=stated.licence)
    )


def roots() -> list[Path]:
    """Folders in which sets are looked for, in order; each set is a folder of its name. Raises DataError."""
    folders: list[Path] = []
    given = os.environ.get(DATA_VARIABLE)
    if given:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise DataError(f"{DATA_VARIABLE} names {folder}, which is no folder", remedy=f"correct {DATA_VARIABLE}")
        folders.append(folder)
    repository = HERE.parents[2]
    for beside in (Path.cwd(), *([repository] if (repository / "pyproject.toml").is_file() else [])):
        folder = beside.parent / "shared" / "data"
        if folder.is_dir() and folder not in folders:
            folders.append(folder)
    return [*folders, _cache()]


def _cache() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    return (Path(given).expanduser() if given else Path.home() / ".cache" / "nacre") / "data"


@cache
def _catalogue() -> dict[str, DataSet]:
    plain = json.loads((HERE / "catalogue" / "sets.json").read_text(encoding="utf-8"))
    sets = [
        DataSet(
            name=one["name"],
            aliases=tuple(one["aliases"]),
            task=one["task"],
            about=one["about"],
            languages=tuple(one["languages"]),
            licence=one["licence"],
            licence_class=one["licence_class"],
            source=one["source"],
            files=tuple(map(_file, one["files"])),
            embedded=one.get("embedded", False),
        )
        for one in plain["sets"]
    ]
    return {one.name: one for one in sets}


def _file(plain: dict[str, object]) -> DataFile:
    address, first = plain.get("upstream"), plain.get("first_byte")
    upstream = Upstream.parse(str(address), None if first is None else int(str(first))) if address else None
    rows, licence = plain.get("rows"), plain.get("licence")
    return DataFile(
        path=str(plain["path"]),
        n_bytes=int(str(plain["bytes"])),
        sha256=str(plain["sha256"]),
        rows=rows if isinstance(rows, int) else None,
        licence=licence if isinstance(licence, str) else None,
        upstream=upstream,
    )


def _located(one: DataSet) -> DataSet:
    folders: Iterable[Path] = [HERE / one.name] if one.embedded else (root / one.name for root in roots())
    for folder in folders:
        if folder.is_dir() and all((folder / file.path).is_file() for file in one.files):
            return DataSet(**{**vars(one), "path": folder})
    return one


def _folder(found: DataSet) -> Path:
    if found.path is None:
        raise ReferenceNotFound(f"the data set {found.name} is not on this machine", remedy=_how_to_get(found))
    return found.path


def _part(found: DataSet, split: str) -> Path:
    """The file of this name, or with this name before its endings (`train` for train.jsonl.gz), or the sub-folder."""
    folder = _folder(found)
    paths = sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    for path in paths:
        inside = path.relative_to(folder).as_posix()
        stem = inside.split(".jsonl")[0].split(".txt")[0]
        if split in (inside, stem):
            return path
    names = {path.relative_to(folder).as_posix().split(".jsonl")[0].split(".txt")[0] for path in paths}
    raise ReferenceNotFound(f"the data set {found.name} has no part {split!r}", remedy=closest(split, names))


def _record(
    found: DataSet, rest: str, *, files: Sequence[Entry] = (), digest: str = "", licence: str | None = None
) -> Record:
    return Record(
        name=f"data:{rest}",
        version=1,
        kind="tokenizer" if found.task == "tokenizers" and "/" in rest else "dataset",
        digest=digest or (digest_entries(tuple(files)) if files else ""),
        fingerprint=None,
        basis="declared",
        licence=licence or found.licence,
        notes=(found.remark,) if found.remark else (),
        files={entry.path: (entry.size, entry.sha256) for entry in files},
        extra={"origin": found.source},
    )


def _verify(path: Path, file: DataFile) -> None:
    size, digest = hash_file(path)
    if (size, digest) != (file.n_bytes, file.sha256):
        raise IntegrityError(
            f"{path} differs from the catalogue: {size:,} bytes, SHA-256 {digest[:16]}..., "
            f"stated are {file.n_bytes:,} bytes, {file.sha256[:16]}...",
            remedy="restore the file from a copy, or delete it and run `nacre data get`",
        )


def _how_to_get(found: DataSet) -> str:
    partly = [root / found.name for root in roots() if (root / found.name).is_dir()]
    if partly:
        absent = [file.path for file in found.files if not (partly[0] / file.path).is_file()]
        return f"{partly[0]} lacks {', '.join(absent[:4])}: restore what is missing"
    if found.downloadable:
        return f"run `nacre data get {found.name}`"
    return (
        f"it was converted from {found.source} and no download gives the same bytes; "
        f"set {DATA_VARIABLE} to a folder that holds {found.name}/{found.files[0].path if found.files else ''}"
    )
