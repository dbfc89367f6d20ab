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
from pathlib import Path

from nacre.lifecycle.serve.contract import Entry, Json, Refusal
from nacre.lifecycle.serve.state.database import Unavailable, connect, state_folder
from nacre.lifecycle.serve.state.entries import insert, newest, of_id, storable
from nacre.lifecycle.serve.state.journal import Journal, adopt
from nacre.lifecycle.serve.state.usage import Spent, spent, sums

_EVERY_S = 0.2
_RETRY_S = 0.5
_FLUSH_S = 10.0
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
        self._under_way: list[Entry] = []
        self._flushes: list[Future[None]] = []
        self._wake = threading.Event()
        self._closing = False
        self._gives_up_at = float("inf")
        self._thread = threading.Thread(target=self._write, name="nacre-ledger", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Entries that are not in the database yet."""
        return len(self._waiting) + len(self._under_way)

    def enter(self, entry: Entry) -> None:
        """Takes an entry; never waits. What it took survives the death of this process.

        What no database takes is replaced: odd characters and the end of texts over 256 characters by marks, numbers
        that are not finite or not countable by unknown.
        """
        entry = storable(entry)
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
            if not self._waiting and not self._under_way:
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

    def usage(
        self, by: Sequence[str], since: float | None = None, until: float | None = None, *,
        key: str | None = None, model: str | None = None,
    ) -> list[Json]:  # fmt: skip
        """Sums by groups: see `usage.sums`. It reads the database: call it in a thread."""
        return sums(self._reading, by, since, until, key=key, model=model)

    def recent(self, limit: int, key: str | None = None) -> list[Entry]:
        """The last `limit` entries, newest first, of one key's id where it is given; those that this process has not
        written yet are among them. It reads the database: call it in a thread. Raises Unavailable."""
        found = {entry.id: entry for entry in self._unwritten() if key is None or entry.key == key}
        for entry in newest(self._reading, limit, key):
            found.setdefault(entry.id, entry)
        return sorted(found.values(), key=lambda entry: entry.at, reverse=True)[:limit]

    def entry(self, entry_id: str) -> Entry | None:
        """The entry of an id (the header `x-nacre-id`), also before it is written; None where there is none. It may
        read the database: call it in a thread. Raises Unavailable."""
        for entry in self._unwritten():
            if entry.id == entry_id:
                return entry
        return of_id(self._reading, entry_id)

    def _unwritten(self) -> list[Entry]:
        """What waits and what is being written. Taken before the database is read, nothing falls between the two."""
        with self._lock:
            return [*self._waiting, *self._under_way]

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
                self._under_way = batch
                closing, file = self._closing, self._journal.turn() if batch else -1
            if batch and not self._keep(batch):
                with self._lock:  # closing, and the database never answered
                    self._waiting = batch + self._waiting
                    self._under_way = []
                return
            if batch:
                self._journal.empty(file)
                self._under_way = []
            for done in flushes:
                if done.set_running_or_notify_cancel():
                    done.set_result(None)
            if closing:
                return

    def _keep(self, batch: Sequence[Entry]) -> bool:
        """Writes a batch, again and again until it is kept, or until closing has lasted too long."""
        while True:
            try:
                added = insert(self._writing, batch)
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
                added += insert(self._writing, entries)
                path.unlink(missing_ok=True)
            finally:
                os.close(lock)
        if added:
            _log.warning("%d entries of a process that was killed are now in the ledger", added)
        return added
