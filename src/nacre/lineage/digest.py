"""Content digests: `sha256:` of one file, or of the canonical manifest of a folder.

The manifest lists every file by its relative path, size and SHA-256, sorted by path bytes. Empty folders do not count.
Left out at the top level: `lineage.json` (it carries the digest) and `logs/` (they carry times and are no content).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.errors import DataError, IntegrityError

RECORD_NAME = "lineage.json"
LOGS_NAME = "logs"
_HASHING_THREADS = min(8, os.cpu_count() or 1)
_WORTH_THREADS_BYTES = 4 << 20  # less is read before the threads have started

HashFile = Callable[[Path], "tuple[int, str]"]


@dataclass(frozen=True)
class Entry:
    """One file of a manifest: `path` is relative and in POSIX form, `sha256` is bare hexadecimal."""

    path: str
    size: int
    sha256: str


def hash_file(path: Path) -> tuple[int, str]:
    """Size and bare SHA-256 of a file; raises IntegrityError when the file changes while it is read."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        value = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise IntegrityError(f"{path} changed while it was being read", remedy="stop what writes it, then run again")
    return after.st_size, value


def digest_file(path: Path) -> str:
    """`sha256:...` of the bytes of one file."""
    return "sha256:" + hash_file(_regular(path))[1]


def digest_folder(path: Path) -> str:
    """`sha256:...` of the canonical manifest of a folder."""
    return digest_entries(manifest(path))


def digest_path(path: Path, hash_one: HashFile = hash_file) -> str:
    """The digest of a file or a folder, whichever `path` is."""
    if path.is_dir():
        return digest_entries(manifest(path, hash_one=hash_one))
    return "sha256:" + hash_one(_regular(path))[1]


def digest_entries(entries: tuple[Entry, ...]) -> str:
    """The folder digest of a manifest, whatever the order of its entries."""
    total = hashlib.sha256()
    for name, entry in sorted((os.fsencode(entry.path), entry) for entry in entries):
        total.update(f"{entry.sha256} {entry.size} ".encode() + name + b"\0")
    return "sha256:" + total.hexdigest()


def digest_json(value: Mapping[str, Any]) -> str:
    """`sha256:...` of a JSON object, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def manifest(folder: Path, *, links: bool = True, hash_one: HashFile = hash_file) -> tuple[Entry, ...]:
    """Every content file of `folder`, sorted by path bytes; many bytes are hashed on several threads.

    With `links` symbolic links stand for what they point at (model caches are built of them); without, each is an
    error, because the folder would not hold its own content. Dangling links, cycles and special files are errors.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", remedy="check the path")
    found = sorted(_walk(folder, links), key=lambda item: os.fsencode(item[0]))
    paths = [path for _, path in found]
    if len(paths) < 2 or sum(path.stat().st_size for path in paths) < _WORTH_THREADS_BYTES:
        hashed = [hash_one(path) for path in paths]
    else:
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            hashed = list(pool.map(hash_one, paths))
    return tuple(Entry(name, size, value) for (name, _), (size, value) in zip(found, hashed, strict=True))


def _walk(top: Path, links: bool) -> Iterator[tuple[str, Path]]:
    pending = [(top, "", frozenset({os.path.realpath(top)}))]
    while pending:
        folder, prefix, above = pending.pop()
        for item in os.scandir(folder):
            if not prefix and item.name in (RECORD_NAME, LOGS_NAME):
                continue
            name, path = prefix + item.name, Path(item.path)
            if item.is_symlink() and not links:
                raise DataError(f"{path} is a symbolic link to {os.readlink(path)}", remedy="write a copy of the file")
            if item.is_dir():
                real = os.path.realpath(path)
                if real in above:
                    raise DataError(f"{path} links to a folder that contains it", remedy="remove the link")
                pending.append((path, name + "/", above | {real}))
            else:
                yield name, _regular(path)


def _regular(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        what = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise DataError(f"{path} {what}", remedy="restore the file or remove the link") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is neither a file nor a folder", remedy="remove it: only files have content")
    return path
