"""The ledger: one line per request, written in batches by one thread, so that nothing waits for a disk.

What holds when:
- `enter` returned: the entry is in the journal (the kernel has it): `kill -9` loses nothing.
- within a second: the entry is in the database, fsynced: a power cut loses at most the last second.
- `flush` returned: everything entered before it is in the database, fsynced.

While the database does not answer, entries wait and are tried again; `room` then refuses new requests once too many
wait, so that what waits is bounded by `capacity` and the requests in flight. Nothing that was entered is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import Any

from nacre.lifecycle.serve.contract import Entry, Json, Refusal
from nacre.lifecycle.serve.state.database import Database, Execute, Unavailable, connect, state_folder
from nacre.lifecycle.serve.state.journal import Journal, adopt
from nacre.lifecycle.serve.state.usage import Spent, spent, sums

_EVERY_S = 0.2
_RETRY_S = 0.5
_FLUSH_S = 10.0
_COLUMNS = tuple(one.name for one in fields(Entry))
_INSERT = (
    f"INSERT INTO entries ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO NOTHING"
)
_values_of = attrgetter(*_COLUMNS)
_LONGEST_TEXT = 256
_LARGEST = 2**53
_log = logging.getLogger(__name__)


class StoredLedger:
    """A ledger in the database at `address`; implements the contract's `Ledger`.

    `capacity` entries may wait before `room` refuses. `journal` is the folder of journals of this machine; what a
    dead process left there is entered at the start (`recovered` counts it). `doubled` counts entries
    whose id the ledger held already; `trouble` says why the database cannot be written, while it cannot.
    """

    def __init__(
        self, address: str | Path | None = None, *, journal: Path | None = None, capacity: int = 10_000
    ) -> None:
        self._reading = connect(address)
        self._writing = connect(address)
        self.capacity = capacity
        self.doubled = 0
        self.trouble: str | None = None
        folder = journal or state_folder()
        self._journal = Journal(folder)
        self.recovered = self._recover(folder)
        self._lock = threading.Lock()
        self._waiting: list[Entry] = []
        self._n_writing = 0
        self._flushes: list[Future[None]] = []
        self._wake = threading.Event()
        self._closing = False
        self._gives_up_at = float("inf")
        self._thread = threading.Thread(target=self._write, name="nacre-ledger", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Entries that are not in the database yet."""
        return len(self._waiting) + self._n_writing

    def enter(self, entry: Entry) -> None:
        """Takes an entry; never waits. What it took survives the death of this process.

        What no database takes is replaced: odd characters and the end of texts over 256 characters by marks, numbers
        that are not finite or not countable by unknown.
        """
        entry = _storable(entry)
        with self._lock:
            if self._closing:
                raise RuntimeError("the ledger is closed")
            self._waiting.append(entry)
            try:
                self._journal.write(entry)
            except OSError as error:  # it still goes to the database
                _log.error("the journal of the ledger cannot be written: %s", error)

    def room(self) -> None:
        """Raises Refusal (503) while too many entries wait for a database that does not keep up."""
        if len(self) >= self.capacity:
            raise Refusal(
                503, "the ledger cannot be written now: try again later", kind="server_error", code="ledger_full",
                retry_after=_RETRY_S * 2,
            )  # fmt: skip

    async def flush(self) -> None:
        """Returns when all that was entered is on disk; raises Unavailable after ten seconds without success."""
        done: Future[None] = Future()
        with self._lock:
            if not self._waiting and not self._n_writing:
                return
            self._flushes.append(done)
        self._wake.set()
        try:
            await asyncio.wait_for(asyncio.wrap_future(done), _FLUSH_S)
        except TimeoutError:
            raise Unavailable(
                f"{len(self)} entries of the ledger wait: {self.trouble or 'the database is slow'}",
                remedy="see that the database runs and has room left",
            ) from None

    async def close(self) -> None:
        """Writes what waits, for up to ten seconds; what could not be written stays in the journal."""
        with self._lock:
            already, self._closing = self._closing, True
            self._gives_up_at = time.monotonic() + _FLUSH_S
        if already:
            return
        self._wake.set()
        await asyncio.to_thread(self._thread.join)
        left = len(self)
        if left:
            _log.error("%d entries could not be written (%s): they are entered at the next start", left, self.trouble)
        self._journal.close(keep=left > 0)
        self._writing.close()
        self._reading.close()

    def usage(self, by: Sequence[str], since: float | None = None, until: float | None = None) -> list[Json]:
        """Sums by groups: see `usage.sums`. It reads the database: call it in a thread."""
        return sums(self._reading, by, since, until)

    async def spent(self, key: str, since: float | None = None) -> Spent:
        """What a key has used, entries that wait included."""
        await self.flush()
        return await asyncio.to_thread(spent, self._reading, key, since)

    def _write(self) -> None:
        """The thread: takes what waits every fifth of a second, or at once when woken."""
        while True:
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            with self._lock:
                batch, self._waiting = self._waiting, []
                flushes, self._flushes = self._flushes, []
                self._n_writing = len(batch)
                closing, file = self._closing, self._journal.turn() if batch else -1
            if batch and not self._keep(batch):
                with self._lock:  # closing, and the database never answered
                    self._waiting = batch + self._waiting
                    self._n_writing = 0
                return
            if batch:
                self._journal.empty(file)
                self._n_writing = 0
            for done in flushes:
                if done.set_running_or_notify_cancel():
                    done.set_result(None)
            if closing:
                return

    def _keep(self, batch: Sequence[Entry]) -> bool:
        """Writes a batch, again and again until it is kept, or until closing has lasted too long."""
        while True:
            try:
                added = _insert(self._writing, batch)
            except Unavailable as error:
                if self.trouble is None:
                    _log.error("the ledger cannot be written, it is tried again: %s", error.message)
                self.trouble = error.message
                if time.monotonic() + _RETRY_S > self._gives_up_at:
                    return False
                time.sleep(_RETRY_S)
                continue
            self.trouble = None
            if added < len(batch):
                self.doubled += len(batch) - added
                _log.error("%d entries have an id that the ledger holds already", len(batch) - added)
            return True

    def _recover(self, folder: Path) -> int:
        """Enters what dead processes left in their journals; an entry that the database has is not doubled."""
        added = 0
        for path, lock, entries in adopt(folder):
            try:
                added += _insert(self._writing, entries)
                path.unlink(missing_ok=True)
            finally:
                os.close(lock)
        if added:
            _log.warning("%d entries of a process that was killed are now in the ledger", added)
        return added


def _insert(database: Database, batch: Sequence[Entry]) -> int:
    """Entries that were not there before."""
    added = 0

    def work(execute: Execute) -> None:
        nonlocal added
        added = 0
        for entry in batch:
            added += execute(_INSERT, _values(entry))

    if batch:
        database.write(work)
    return added


def _values(entry: Entry) -> list[Any]:
    return [int(value) if isinstance(value, bool) else value for value in _values_of(entry)]


def _storable(entry: Entry) -> Entry:
    """The entry itself, nearly always. A model's name is a client's text, a count is an upstream's number."""
    changes: dict[str, Any] = {}
    for name, value in zip(_COLUMNS, _values_of(entry), strict=True):
        if isinstance(value, str):
            if len(value) > _LONGEST_TEXT or not value.isprintable():
                changes[name] = _plain_text(value)
        elif isinstance(value, int | float) and not (isfinite(value) and abs(value) <= _LARGEST):
            changes[name] = 0 if name in ("at", "seconds", "status", "masked") else None
    return replace(entry, **changes) if changes else entry


def _plain_text(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:_LONGEST_TEXT])
    return shown + ("…" if len(text) > _LONGEST_TEXT else "")
