"""A cache of file hashes, so that planning does not read gigabytes again to learn that nothing changed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from nacre.lineage.digest import hash_file
from nacre.lineage.durable import write_atomic

# Smaller files are hashed faster than looked up. A file this fresh could change within its clock tick: not kept.
_SMALLEST_BYTES = 1 << 20
_FRESH_S = 1.0


class FileHashes:
    """Hashes of large files, trusted while size, inode, modification and change time all stay what they were.

    The change time cannot be set by a program, so an edited file is hashed again even when its old times were restored.
    The cache file may be lost or overwritten by another process at any time: only speed is lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, list[int | str]] = _load(path)
        self._changed = False

    def hash_file(self, path: Path) -> tuple[int, str]:
        """Size and bare SHA-256, as `digest.hash_file` gives them."""
        state = path.stat()
        if state.st_size < _SMALLEST_BYTES:
            return hash_file(path)
        key = os.path.realpath(path)
        identity: list[int | str] = [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
        row = self._rows.get(key)
        if row is not None and row[:4] == identity:
            return state.st_size, str(row[4])
        size, value = hash_file(path)
        if time.time() - max(state.st_mtime, state.st_ctime) > _FRESH_S:
            self._rows[key] = [*identity, value]
            self._changed = True
        return size, value

    def save(self) -> None:
        """Keeps what was learnt, without the files that no longer exist."""
        if self._changed:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            rows = {key: row for key, row in self._rows.items() if os.path.exists(key)}
            write_atomic(self._path, json.dumps(rows).encode())
            self._changed = False


def _load(path: Path) -> dict[str, list[int | str]]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    fits = isinstance(rows, dict) and all(isinstance(row, list) and len(row) == 5 for row in rows.values())
    return rows if fits else {}
