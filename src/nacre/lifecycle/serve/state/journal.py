"""A journal beside the database: entries that are not in it yet, in the kernel's hands as soon as they are taken.

Each process writes two files by turns, `journal-PID-XXXX.{0,1}.jsonl`, and empties one when its entries are in the
database. A process holds a lock on its files; those that nobody holds belong to a dead one and are adopted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Entry

_log = logging.getLogger(__name__)
_FIELDS = tuple(one.name for one in fields(Entry))


class Journal:
    """Two files that take turns. Not safe between threads: its owner holds a lock around `write` and `turn`."""

    def __init__(self, folder: Path) -> None:
        stem = f"journal-{os.getpid()}-{secrets.token_hex(4)}"
        self._paths = [folder / f"{stem}.{number}.jsonl" for number in (0, 1)]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._files = [_locked(path) for path in self._paths]
        except OSError as error:
            raise ConfigError(
                f"the journal of the ledger cannot be written in {folder}: {error.strerror}",
                remedy="set NACRE_HOME to a folder that can be written",
            ) from None
        self._turn = 0
        self._torn = b""

    def write(self, entry: Entry) -> None:
        """Hands an entry to the kernel: it survives the death of this process, not of the machine. Raises OSError."""
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
        if os.write(self._files[self._turn], self._torn + line) != len(self._torn) + len(line):
            self._torn = b"\n"  # what follows stands on a line of its own
            raise OSError("the disk is full")
        self._torn = b""

    def turn(self) -> int:
        """Goes on in the other file; gives the number of the one that was left, for `empty`."""
        left, self._turn = self._turn, 1 - self._turn
        return left

    def empty(self, number: int) -> None:
        """The entries of a file are in the database."""
        os.ftruncate(self._files[number], 0)

    def close(self, *, keep: bool) -> None:
        """Ends the journal. `keep` leaves the files for the next process to adopt."""
        for path, file in zip(self._paths, self._files, strict=True):
            if not keep:
                path.unlink(missing_ok=True)
            os.close(file)


def adopt(folder: Path) -> list[tuple[Path, int, list[Entry]]]:
    """The journals of dead processes: path, a lock to hold until it is removed, and the entries.

    A last line that was cut short is an entry that was never taken; lines that are no entries are counted and logged.
    """
    found = []
    for path in sorted(folder.glob("journal-*.jsonl")):
        try:
            lock = os.open(path, os.O_RDWR)
        except FileNotFoundError:  # its owner has just finished
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its owner lives
            os.close(lock)
            continue
        found.append((path, lock, _entries(path, lock)))
    return found


def _locked(path: Path) -> int:
    """A new file, locked before anybody could adopt it: it gets its name when the lock is held."""
    hidden = path.with_name(f".{path.name}")
    file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    hidden.rename(path)
    return file


def _entries(path: Path, file: int) -> list[Entry]:
    entries, broken = [], 0
    with os.fdopen(os.dup(file), "rb") as stream:
        lines = stream.read().splitlines()
    for line in lines:
        try:
            entries.append(_entry(orjson.loads(line)))
        except (ValueError, TypeError, KeyError):
            broken += 1
    if broken:
        _log.warning("%s: %d lines are no entries, or were cut short", path, broken)
    return entries


def _entry(found: dict[str, Any]) -> Entry:
    return Entry(**{name: found[name] for name in _FIELDS if name in found})
