"""Where kept answers lie: in memory, and in an SQLite file where one is named. Both are bounded in bytes and in age."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Usage

_log = logging.getLogger(__name__)
T = TypeVar("T")
_OVERHEAD = 512  # bytes of an entry besides its answer
_WAITING = 256  # writes to the file under way; more are left out, for the cache is never in the way
_RECOUNT = 256  # answers between two counts of what the file holds
_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, data BLOB NOT NULL, about TEXT NOT NULL, size INTEGER NOT NULL,
    made REAL NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_used ON kept (used, size);
"""


@dataclass(frozen=True)
class Kept:
    """An answer: the bytes of its body, or of its events; who gave it, and what it used then."""

    data: bytes
    is_stream: bool
    model: str
    headers: dict[str, str]
    usage: Usage
    made: float = 0.0  # Unix time; 0 until it is stored

    @property
    def size(self) -> int:
        return len(self.data) + _OVERHEAD


class MemoryStore:
    """The answers used last, up to `most_bytes` together and `keep_s` of age; `evicted` had to make room."""

    def __init__(self, most_bytes: int, keep_s: float, clock: Callable[[], float] = time.time) -> None:
        self.most_bytes, self.keep_s, self.nbytes, self.evicted = most_bytes, keep_s, 0, 0
        self._clock = clock
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Kept | None:
        """The answer under `key`, which is then the one used last."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if not 0 <= self._clock() - kept.made < self.keep_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, key: bytes, kept: Kept) -> None:
        """Keeps an answer, in place of those that were not used for longest."""
        if key in self._kept:
            self._drop(key)
        if kept.size > self.most_bytes:
            return
        self._kept[key] = kept if kept.made else _dated(kept, self._clock())
        self.nbytes += kept.size
        while self.nbytes > self.most_bytes:
            self._drop(next(iter(self._kept)))
            self.evicted += 1

    def _drop(self, key: bytes) -> None:
        self.nbytes -= self._kept.pop(key).size


class SqliteStore:
    """The same in a file that only its owner can read, in a thread of its own. What fails is said once and left out."""

    def __init__(self, file: Path, most_bytes: int, keep_s: float, clock: Callable[[], float] = time.time) -> None:
        self.file, self.most_bytes, self.keep_s = file, most_bytes, keep_s
        self._clock, self._waiting, self._failed, self._closed = clock, 0, False, False
        self._puts = self._total = self.evicted = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nacre-cache")
        self._database = self._pool.submit(self._open).result()

    def _open(self) -> sqlite3.Connection:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))
            self.file.chmod(0o600)
            database = sqlite3.connect(self.file, timeout=5, isolation_level=None)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the cache {self.file} cannot be opened: {error}", remedy="name another file under cache.file"
            ) from error
        return database

    async def get(self, key: bytes) -> Kept | None:
        """The answer under `key`."""
        return await self._do(lambda: self._get(key), None)

    async def put(self, key: bytes, kept: Kept) -> None:
        """Keeps an answer; the ones that were not used for longest make room for it."""
        if kept.size <= self.most_bytes:
            await self._do(lambda: self._put(key, kept), None)

    async def close(self) -> None:
        """Closes the file after what is under way. Calling it twice does no harm."""
        if not self._closed:
            self._closed = True
            self._pool.submit(self._database.close)
            await asyncio.to_thread(self._pool.shutdown)

    async def _do(self, work: Callable[[], T], otherwise: T) -> T:
        if self._closed or self._waiting >= _WAITING:
            return otherwise
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (sqlite3.Error, OSError) as error:  # a full disk, a damaged file
            if not self._failed:
                self._failed = True
                _log.warning("the cache %s cannot be used: %s", self.file, error)
            return otherwise
        finally:
            self._waiting -= 1

    def _get(self, key: bytes) -> Kept | None:
        now = self._clock()
        row = self._database.execute("SELECT data, about, made FROM kept WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if not 0 <= now - row[2] < self.keep_s:
            self._database.execute("DELETE FROM kept WHERE key = ?", (key,))
            return None
        self._database.execute("UPDATE kept SET used = ? WHERE key = ?", (now, key))
        return _read(bytes(row[0]), row[1], row[2])

    def _put(self, key: bytes, kept: Kept) -> None:
        now = self._clock()
        about = json.dumps(
            {"stream": kept.is_stream, "model": kept.model, "headers": kept.headers, "usage": asdict(kept.usage)}
        )
        row = (key, kept.data, about, kept.size, now, now)
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?)", row)
            self._database.execute("DELETE FROM kept WHERE made <= ?", (now - self.keep_s,))
            self._make_room(kept.size)
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def _make_room(self, added: int) -> None:
        """The sum is counted anew now and then: other processes may write to the file, and answers are replaced."""
        if self._puts % _RECOUNT == 0 or self._total + added > self.most_bytes:
            total = self._database.execute("SELECT coalesce(sum(size), 0) FROM kept").fetchone()[0]
            self._total = int(total) - added
        self._puts, self._total = self._puts + 1, self._total + added
        while self._total > self.most_bytes:
            key, size = self._database.execute("SELECT key, size FROM kept ORDER BY used, key LIMIT 1").fetchone()
            self._database.execute("DELETE FROM kept WHERE key = ?", (key,))
            self._total -= size
            self.evicted += 1


def _dated(kept: Kept, now: float) -> Kept:
    return Kept(kept.data, kept.is_stream, kept.model, kept.headers, kept.usage, now)


def _read(data: bytes, about: str, made: float) -> Kept:
    plain: dict[str, Any] = json.loads(about)
    usage = Usage(plain["usage"]["prompt"], plain["usage"]["completion"], plain["usage"]["counted_by"])
    return Kept(data, bool(plain["stream"]), plain["model"], dict(plain["headers"]), usage, made)
