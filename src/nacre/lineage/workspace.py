"""Making one artifact so that it is either complete or not there, whatever happens in between.

A step works in `ROOT/work/NAME-FINGERPRINT/`: `out/` becomes the artifact, `scratch/` survives a kill. Publishing
digests `out`, flushes it, writes the record into it, and renames the folder to its version: the moment of truth.
Everything here is called with the lock of the name held.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nacre.errors import IntegrityError, NacreError
from nacre.lineage.digest import LOGS_NAME, RECORD_NAME, digest_entries, manifest
from nacre.lineage.durable import sync_folder, sync_tree, write_atomic
from nacre.lineage.record import Record, read, write
from nacre.lineage.store import Store

_ATTEMPTS = "attempts"


@dataclass(frozen=True)
class Workspace:
    """The folders of one step in progress."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def attempts(self) -> int:
        """How often the step was begun, this time included."""
        try:
            return int((self.folder / _ATTEMPTS).read_text())
        except (FileNotFoundError, ValueError):
            return 0

    @property
    def is_begun(self) -> bool:
        """Whether an earlier attempt left something to go on from."""
        return (self.out / RECORD_NAME).exists() or (self.scratch.is_dir() and any(self.scratch.iterdir()))


def workspace(store: Store, name: str, fingerprint: str) -> Workspace:
    """Where the step that makes `name` this way works; nothing is created."""
    return Workspace(store.root / "work" / f"{_flat(name)}-{_short(fingerprint)}")


def begin(store: Store, name: str, fingerprint: str) -> Workspace:
    """A workspace ready for a stage: `out` empty except for the logs of earlier attempts, `scratch` as it was left."""
    space = workspace(store, name, fingerprint)
    space.out.mkdir(parents=True, exist_ok=True)
    space.scratch.mkdir(exist_ok=True)
    for item in space.out.iterdir():
        if item.name != LOGS_NAME:
            _remove(item)
    write_atomic(space.folder / _ATTEMPTS, str(space.attempts + 1).encode())
    return space


def publish(store: Store, space: Workspace, record: Record) -> Record:
    """Turns `out` into the next version of `record.name`; the version, digest and file list are filled in here."""
    entries = manifest(space.out, links=False)
    if not entries:
        raise IntegrityError(f"the step that makes {record.name} wrote no file", remedy="report this: a stage's fault")
    sync_tree(space.out)
    home = store.root / "store" / record.name
    version = _next_version(home)
    files = {entry.path: (entry.size, entry.sha256) for entry in entries}
    final = replace(record, version=version, digest=digest_entries(entries), files=files)
    write(space.out, final)
    _make_durable_folder(home, store.root)
    os.rename(space.out, home / str(version))
    sync_folder(home)
    sweep(store, record.name)
    return final


def recover(store: Store, name: str, fingerprint: str) -> Record | None:
    """Publishes what a killed process had finished but not yet renamed; None when there is no such thing."""
    space = workspace(store, name, fingerprint)
    if not (space.out / RECORD_NAME).exists():
        return None
    try:
        record = read(space.out)
        whole = digest_entries(manifest(space.out, links=False)) == record.digest
    except NacreError:
        return None
    if not whole or (record.name, record.fingerprint) != (name, fingerprint):
        return None
    return publish(store, space, record)


def sweep(store: Store, name: str, fingerprint: str | None = None) -> int:
    """Removes the work folders of a name, of one fingerprint or of all; gives their number."""
    only = None if fingerprint is None else workspace(store, name, fingerprint).folder
    stale = [folder for folder in unfinished(store, name) if only in (None, folder)]
    for folder in stale:
        shutil.rmtree(folder)
    return len(stale)


def unfinished(store: Store, name: str | None = None) -> list[Path]:
    """Work folders, of one name or of all."""
    top = store.root / "work"
    folders = sorted(top.iterdir()) if top.is_dir() else []
    return [one for one in folders if name is None or one.name.rpartition("-")[0] == _flat(name)]


@contextmanager
def lock(store: Store, name: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a name. Where another process has it, `on_wait` is told who, and this one waits.

    The kernel frees the lock when its process ends, however it ends, so no lock is ever stale.
    """
    path = store.root / "locks" / f"{_flat(name)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait(_holder(path))
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        file.flush()
        yield


def holder(store: Store, name: str) -> str | None:
    """Who holds the lock of a name, in words; None where nobody does: nothing is being made under that name now.

    Looking takes a shared lock for an instant: a run that begins right then waits for that instant, and goes on.
    """
    path = store.root / "locks" / f"{_flat(name)}.lock"
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(path)
    except FileNotFoundError:
        return None
    return None


def _holder(path: Path) -> str:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return f"process {row['pid']} on {row['host']} since {row['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _next_version(home: Path) -> int:
    taken = [int(item.name) for item in home.iterdir() if item.name.isdecimal()] if home.is_dir() else []
    return max(taken, default=0) + 1


def _make_durable_folder(folder: Path, root: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for parent in folder.parents:
        sync_folder(parent)
        if parent == root:
            return


def _remove(item: Path) -> None:
    if item.is_dir() and not item.is_symlink():
        shutil.rmtree(item)
    else:
        item.unlink()


def _flat(name: str) -> str:
    return name.replace("/", "+")


def _short(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:")[:12]
