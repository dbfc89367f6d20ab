"""Exact answers kept: one SQLite file, safe for several threads and processes, and against being killed.

The key of an answer is a hash of the engine's identity and the whole request, so a hit is what would be said again.
The cache is never in the way: a damaged file is put aside, a full disk is said once, and the engine is asked instead.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_FILE = "answers.sqlite3"
_SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, body TEXT NOT NULL, vector BLOB) WITHOUT ROWID"
_FORMAT = 1  # of what is kept; part of every key, so that an older program's answers are not misread
_MOST_KEYS = 500  # bound variables of one statement

Kept = tuple[dict[str, Any], bytes | None]


def key_of(identity: str, verb: str, request: Any) -> bytes:
    """SHA-256 of an engine and a request in canonical JSON."""
    text = json.dumps([_FORMAT, identity, verb, request], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


class AnswerCache:
    """Answers under `folder`. `remarks` say what went wrong with it; no method raises for that."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / _FILE
        self.remarks: list[str] = []
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        self._process = 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """What is kept under `keys`: a JSON object, and the bytes of a vector where there is one."""
        found: dict[bytes, Kept] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), _MOST_KEYS):
            part = distinct[start : start + _MOST_KEYS]
            marks = ",".join("?" * len(part))
            rows = self._run(f"SELECT key, body, vector FROM answers WHERE key IN ({marks})", part)
            for key, body, vector in rows:
                try:
                    found[bytes(key)] = (json.loads(body), vector)
                except (ValueError, TypeError):
                    self._say(f"{self.file}: an answer is damaged and is asked again")
        return found

    def put(self, answers: Iterable[tuple[bytes, dict[str, Any], bytes | None]]) -> None:
        """Keeps answers, all or none of them."""
        rows = [(key, json.dumps(body, ensure_ascii=False), vector) for key, body, vector in answers]
        if rows:
            self._run("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows, many=True)

    def close(self) -> None:
        """Closes the file; the next call opens it again."""
        with self._lock:
            self._drop()

    def _run(self, statement: str, values: Sequence[Any], *, many: bool = False) -> list[tuple[Any, ...]]:
        with self._lock:
            for attempt in (1, 2):
                try:
                    connection = self._connection()
                    with connection:
                        if many:
                            connection.executemany(statement, values)
                            return []
                        return connection.execute(statement, values).fetchall()
                except (sqlite3.OperationalError, OSError) as error:  # locked for long, read-only, disk full
                    self._drop()
                    self._say(f"{self.file}: the cache of answers cannot be used: {error}")
                    return []
                except sqlite3.DatabaseError as error:
                    self._put_aside(error)
                    if attempt == 2:
                        return []
        return []

    def _connection(self) -> sqlite3.Connection:
        if self._open is None or self._process != os.getpid():  # a connection must not cross a fork
            self.file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.file, timeout=60, check_same_thread=False)
            self._open, self._process = connection, os.getpid()
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_SCHEMA)
        return self._open

    def _drop(self) -> None:
        if self._open is not None and self._process == os.getpid():
            self._open.close()
        self._open = None

    def _put_aside(self, error: Exception) -> None:
        self._drop()
        aside = self.file.with_name(f"{_FILE}.damaged-{time.time_ns()}")
        try:
            self.file.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.file.with_name(_FILE + suffix).unlink(missing_ok=True)
        except OSError as failure:
            self._say(f"{self.file} is damaged ({error}) and cannot be moved: {failure}")
            return
        self._say(f"{self.file} was damaged ({error}): put aside as {aside.name}, answers are asked again")

    def _say(self, remark: str) -> None:
        if remark not in self.remarks:
            self.remarks.append(remark)
            _log.warning("%s", remark)
