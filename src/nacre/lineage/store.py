"""Where artifacts live: `ROOT/store/NAME/VERSION/`, each a folder in an ecosystem format plus `lineage.json`.

ROOT/store/intents/tune/1/    a complete artifact; versions count 1, 2, 3 ... and are never renamed
ROOT/work/intents+tune-3f.../ a step in progress (see `workspace.py`)
ROOT/locks/                   one lock per name
ROOT/cache/                   hashes of large files; safe to delete
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nacre.errors import ConfigError, IntegrityError, ReferenceNotFound, closest
from nacre.lineage.digest import RECORD_NAME, HashFile, digest_path, manifest
from nacre.lineage.hashes import FileHashes
from nacre.lineage.record import Record, read, verify_record

HOME_VARIABLE = "NACRE_HOME"
_PART = re.compile(r"[^\W_][\w.-]*")
_LONGEST_NAME_BYTES = 180
_EMPTY = "the store is empty: run a recipe, or name another store (--store DIR)"


@dataclass(frozen=True)
class Resolved:
    """What a REF names: a folder or file, with its record where it has one."""

    ref: str
    path: Path
    record: Record | None = None


class ChangedFile(IntegrityError):
    """A file of an artifact is not what its record says; `change` is `missing`, `added` or `changed`."""

    def __init__(self, resolved: Resolved, file: str, change: str) -> None:
        what = "is missing" if change == "missing" else f"was {change}"
        super().__init__(
            f"{resolved.ref}: the file {file} {what} after the artifact was written ({resolved.path})",
            remedy=_restore(resolved),
        )
        self.ref, self.file, self.folder, self.change = resolved.ref, file, str(resolved.path), change


Resolver = Callable[[str], Resolved]


def default_root() -> Path:
    """`$NACRE_HOME`, else `.nacre` in the working folder."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).expanduser() if home else Path(".nacre")


def check_name(name: str) -> str:
    """The name back, when it can address artifacts; raises ConfigError otherwise.

    Parts are split by `/`, begin with a letter or digit of any script, go on with those and `_ . -`, and are not
    digits alone (that is a version).
    """
    parts = name.split("/")
    fits = all(_PART.fullmatch(part) and not part.isdigit() for part in parts)
    if not fits or len(name.encode()) > _LONGEST_NAME_BYTES:
        raise ConfigError(
            f"{name!r} cannot name an artifact",
            remedy=f"letters and digits, then _ . - as well, parts split by /, at most {_LONGEST_NAME_BYTES} bytes",
        )
    return name


class Store:
    """The artifacts under one root. `resolvers` maps a scheme (`data`) to what resolves the rest of such a REF."""

    def __init__(self, root: Path | None = None, resolvers: Mapping[str, Resolver] | None = None) -> None:
        self.root = (root if root is not None else default_root()).absolute()
        self.hashes = FileHashes(self.root / "cache" / "hashes.json")
        self._resolvers = dict(resolvers or {})

    def register(self, scheme: str, resolver: Resolver) -> None:
        """Lets `scheme:REST` be resolved by `resolver(REST)`."""
        self._resolvers[scheme] = resolver

    def names(self) -> list[str]:
        """Every name that has a complete version."""
        top = self.root / "store"
        return sorted(folder.relative_to(top).as_posix() for folder in _name_folders(top) if _versions(folder))

    def unrecorded(self) -> list[Path]:
        """Version folders without a record: somebody took it away, for the store never writes one without."""
        found = [item for folder in _name_folders(self.root / "store") for item in folder.iterdir()]
        return sorted(item for item in found if item.name.isdecimal() and not (item / RECORD_NAME).exists())

    def versions(self, name: str) -> list[int]:
        """The complete versions of a name, oldest first."""
        return _versions(self.root / "store" / name)

    def folder(self, name: str, version: int) -> Path:
        return self.root / "store" / name / str(version)

    def get(self, name: str, version: int) -> Resolved:
        """A complete version; raises IntegrityError when its record does not belong to this address."""
        path = self.folder(name, version)
        record = read(path)
        if record.ref != f"{name}@{version}":
            raise IntegrityError(
                f"{path} holds the record of {record.ref}", remedy="move the folder back, or delete it and run again"
            )
        verify_record(record)
        return Resolved(record.ref, path, record)

    def find(self, name: str, fingerprint: str) -> Resolved | None:
        """The newest version of `name` that was made this way."""
        for version in reversed(self.versions(name)):
            if read(self.folder(name, version)).fingerprint == fingerprint:
                return self.get(name, version)
        return None

    def artifact(self, ref: str) -> Resolved:
        """The artifact of this store that `name` or `name@version` addresses: never a path, never a scheme.

        Raises ReferenceNotFound, and IntegrityError where its record does not belong to it.
        """
        found = self._stored(ref)
        if found is None:
            raise ReferenceNotFound(
                f"{ref!r} is no artifact of {self.root / 'store'}", remedy=closest(ref.partition("@")[0], self.names())
            )
        return found

    def resolve(self, ref: str, base: Path | None = None) -> Resolved:
        """What `ref` names: `name`, `name@version`, a path (relative to `base`), or `scheme:...`.

        A name in the store wins over a relative path of the same spelling; write `./path` to mean the path.
        """
        scheme, colon, rest = ref.partition(":")
        if colon and scheme in self._resolvers:
            return self._resolvers[scheme](rest)
        if rest.startswith("//"):
            raise ReferenceNotFound(f"{ref} is a served model, not a folder", remedy="give a folder or a store name")
        return self._stored(ref) or self._at_path(ref, base) or self._unknown(ref, base)

    def digest(self, resolved: Resolved) -> str:
        """The content digest of what was resolved, from its bytes (large files through the hash cache)."""
        return digest_path(resolved.path, self.hashes.hash_file)

    def hasher(self, resolved: Resolved) -> HashFile:
        """What tells size and hash of the files of an artifact where not every byte is to be read again."""
        return self.hashes.hash_file

    def verify(self, resolved: Resolved, *, deep: bool = False) -> None:
        """Raises IntegrityError naming the first file that differs from the record; `deep` bypasses the hash cache."""
        record = resolved.record
        if record is None or not record.digest:  # nothing was recorded to compare with
            return
        verify_record(record)
        if resolved.path.is_file():
            _same(resolved, digest_path(resolved.path))
            return
        entries = manifest(resolved.path) if deep else manifest(resolved.path, hash_one=self.hasher(resolved))
        found = {entry.path: (entry.size, entry.sha256) for entry in entries}
        if record.files:
            for path in sorted(record.files.keys() | found.keys()):
                _same_file(resolved, path, record.files.get(path), found.get(path))
        else:
            _same(resolved, digest_path(resolved.path, self.hashes.hash_file))

    def _stored(self, ref: str) -> Resolved | None:
        name, at, version = ref.partition("@")
        have = self.versions(name) if _is_name(name) else []
        if not have:
            return None
        if at and not (version.isascii() and version.isdigit()):
            raise ReferenceNotFound(f"{ref}: a version is a number", remedy=f"such as {name}@{have[-1]}")
        if version and int(version) not in have:
            raise ReferenceNotFound(
                f"{name} has no version {version}", remedy=f"it has: {', '.join(f'{name}@{one}' for one in have)}"
            )
        return self.get(name, int(version) if version else have[-1])

    def _at_path(self, ref: str, base: Path | None) -> Resolved | None:
        path = (base or Path()) / Path(ref).expanduser()
        if not ref or not path.exists():
            return None
        has_record = path.is_dir() and (path / RECORD_NAME).exists()
        record = read(path) if has_record else None
        if record is not None:
            verify_record(record)
            if path.resolve().is_relative_to((self.root / "store").resolve()):
                return Resolved(record.ref, path.absolute(), record)
        return Resolved(str(path.absolute()), path.absolute(), record)

    def _unknown(self, ref: str, base: Path | None) -> Resolved:
        scheme, colon, _ = ref.partition(":")
        if colon and len(scheme) > 1 and scheme.isidentifier():
            known = [f"{name}:" for name in self._resolvers]
            raise ReferenceNotFound(f"{ref!r}: unknown kind of reference", remedy=closest(f"{scheme}:", known))
        name, names = ref.partition("@")[0], self.names()
        path = (base or Path()) / Path(ref).expanduser()
        if path.suffix or ref.startswith((".", "/", "~")):  # names have neither, as a rule
            raise ReferenceNotFound(f"there is no file or folder {path}", remedy=_beside(path))
        within = [one for one in names if one.startswith(f"{name}/")]
        raise ReferenceNotFound(
            f"{ref!r} is neither in the store {self.root / 'store'} nor a file or folder",
            remedy=f"under {name}: {', '.join(within)}" if within else closest(name, names) if names else _EMPTY,
        )


def _beside(path: Path) -> str:
    """What to give instead of a path that is not there."""
    if not path.parent.is_dir():
        return f"{path.parent} is no folder either: check the path"
    return closest(path.name, (one.name for one in path.parent.iterdir() if not one.name.startswith(".")))


def _is_name(name: str) -> bool:
    return all(_PART.fullmatch(part) and not part.isdigit() for part in name.split("/"))


def _versions(folder: Path) -> list[int]:
    try:
        items = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        int(one.name) for one in items if one.name.isdecimal() and os.path.exists(f"{one.path}/{RECORD_NAME}")
    )


def _name_folders(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for item in folder.iterdir():
        if item.is_dir() and not item.name.isdigit():
            yield item
            yield from _name_folders(item)


def _same(resolved: Resolved, digest: str) -> None:
    if resolved.record is not None and resolved.record.digest != digest:
        raise IntegrityError(f"{resolved.path} was changed after it was written", remedy=_restore(resolved))


def _same_file(resolved: Resolved, path: str, recorded: tuple[int, str] | None, found: tuple[int, str] | None) -> None:
    if recorded == found:
        return
    raise ChangedFile(resolved, path, "missing" if found is None else "added" if recorded is None else "changed")


def _restore(resolved: Resolved) -> str:
    return f"restore the bytes from a copy, or delete {resolved.path} and run its recipe again"
