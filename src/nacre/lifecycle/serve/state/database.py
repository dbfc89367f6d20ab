"""Where keys and ledger are kept: one SQLite file by default, PostgreSQL by address, with one schema.

SQLite stands in write-ahead mode, so that several processes may share the file: readers never wait, writers wait for
each other. Every commit is fsynced (`synchronous = FULL`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from nacre.errors import ConfigError, ResourceError
from nacre.lazy import require
from nacre.lineage.store import default_root

if TYPE_CHECKING:
    import psycopg

SCHEMA_VERSION = 2
_PATIENCE_S = 5.0
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, hint TEXT NOT NULL,
        models TEXT NOT NULL, allowance TEXT NOT NULL, is_admin INTEGER NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, expires_at DOUBLE PRECISION, revoked_at DOUBLE PRECISION,
        old_digest TEXT, old_until DOUBLE PRECISION)""",
    """CREATE TABLE IF NOT EXISTS entries (
        id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, key TEXT NOT NULL, route TEXT NOT NULL, asked TEXT NOT NULL,
        served TEXT, outcome TEXT NOT NULL, status INTEGER NOT NULL, prompt_tokens BIGINT, completion_tokens BIGINT,
        counted_by TEXT NOT NULL, our_tokens BIGINT, money DOUBLE PRECISION, seconds DOUBLE PRECISION NOT NULL,
        first_token_s DOUBLE PRECISION, cached INTEGER NOT NULL, masked INTEGER NOT NULL,
        estimated_tokens BIGINT, estimated_money DOUBLE PRECISION)""",
    """CREATE TABLE IF NOT EXISTS past (
        at DOUBLE PRECISION NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL,
        requests BIGINT NOT NULL, refused BIGINT NOT NULL, cached BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL, uncounted BIGINT NOT NULL, disagreeing BIGINT NOT NULL,
        known_money DOUBLE PRECISION NOT NULL, unpriced BIGINT NOT NULL, masked BIGINT NOT NULL,
        seconds DOUBLE PRECISION NOT NULL, estimated_tokens BIGINT NOT NULL DEFAULT 0,
        estimated_money DOUBLE PRECISION NOT NULL DEFAULT 0)""",  # days whose entries were deleted, as sums
    # forms of the page that made a key or a secret: sent again, by reload or to another worker, they make no second one
    "CREATE TABLE IF NOT EXISTS forms (token TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL)",
    "CREATE INDEX IF NOT EXISTS past_by_key ON past (key, at)",
    "CREATE INDEX IF NOT EXISTS entries_by_time ON entries (at)",
    "CREATE INDEX IF NOT EXISTS entries_by_key ON entries (key, at)",
    f"INSERT INTO counters VALUES ('schema', {SCHEMA_VERSION}) ON CONFLICT (name) DO NOTHING",
    "INSERT INTO counters VALUES ('keys', 0) ON CONFLICT (name) DO NOTHING",
)

# What version 2 added to tables of version 1
_ADDED = (
    ("entries", "estimated_tokens", "BIGINT"), ("entries", "estimated_money", "DOUBLE PRECISION"),
    ("past", "estimated_tokens", "BIGINT NOT NULL DEFAULT 0"),
    ("past", "estimated_money", "DOUBLE PRECISION NOT NULL DEFAULT 0"),
)  # fmt: skip

Execute = Callable[[str, Sequence[Any]], int]


class Unavailable(ResourceError):
    """The database could not be read or written now; trying again later may help."""


class Database(Protocol):
    """One connection. Statements use `?` for values. Calls from several threads wait for each other.

    `is_local` says that a read is some microseconds of work on this machine.
    """

    name: str
    is_local: bool
    day: str  # the expression that gives an entry's day in UTC, as in 2026-11-22

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; raises Unavailable."""
        ...

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns; raises Unavailable."""
        ...

    def write(self, work: Callable[[Execute], None]) -> None:
        """Runs `work` in one transaction, on disk when this returns; raises Unavailable, and then nothing is kept."""
        ...

    def notified(self, channel: str, timeout_s: float) -> None:
        """Returns when somebody wrote to the channel of notes, or after the timeout; raises Unavailable."""
        ...

    def close(self) -> None: ...


def state_folder(store: str | Path | None = None) -> Path:
    """Where the gateway keeps its state unless told otherwise: `serve` in the store (default: `$NACRE_HOME`)."""
    return (Path(store).expanduser() if store is not None else default_root()).absolute() / "serve"


def default_address(store: str | Path | None = None) -> str:
    """The SQLite file that is used where no address is given."""
    return str(state_folder(store) / "gateway.db")


def local_file(address: str) -> Path | None:
    """The SQLite file of an address (a path or `sqlite:///PATH`), None for PostgreSQL's; ConfigError for another."""
    scheme, separator, rest = address.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        return None
    if separator and scheme != "sqlite":
        raise ConfigError(
            f"the database address begins with {scheme}://",
            remedy="give the path of a SQLite file, or postgresql://USER:PASSWORD@HOST/NAME",
        )
    return Path(rest.removeprefix("/") if separator else address).expanduser()


def connect(address: str | Path | None = None) -> Database:
    """A connection to a SQLite file (a path or `sqlite:///PATH`) or to `postgresql://...`, with the schema made.

    Raises ConfigError for an address that means nothing here or answers nothing.
    """
    text = str(address) if address is not None else default_address()
    file = local_file(text)
    database: Database = SQLite(file) if file is not None else PostgreSQL(text)
    _check_schema(database)
    return database


def _check_schema(database: Database) -> None:
    found = _schema_of(database)
    if found == 1:
        _raise_to_2(database)
        found = _schema_of(database)
    if found != SCHEMA_VERSION:
        database.close()
        raise ConfigError(
            f"the database {database.name} has schema {found}, this version of Nacre writes {SCHEMA_VERSION}",
            remedy="use the version of Nacre that wrote it, or another database",
        )


def _schema_of(database: Database) -> int:
    return int(database.rows("SELECT value FROM counters WHERE name = 'schema'")[0][0])


def _raise_to_2(database: Database) -> None:
    """Adds the columns of version 2. Of several processes that start together one does it, the others find it done."""

    def work(execute: Execute) -> None:
        if not execute("UPDATE counters SET value = 2 WHERE name = 'schema' AND value = 1", ()):
            return
        for table, column, kind in _ADDED:
            if (table, column) not in there:
                execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}", ())

    there = {(table, name) for table in ("entries", "past") for name in database.columns(table)}
    database.write(work)


class SQLite:
    """A file, readable by its owner only."""

    is_local = True
    day = "strftime('%Y-%m-%d', at, 'unixepoch')"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the database {path} cannot be used: {error}",
                remedy="give the path of a SQLite file in a folder that can be written",
            ) from None

    def _prepare(self) -> None:
        """Write-ahead mode and the schema. Switching the mode does not wait for a lock by itself: it is tried again."""
        deadline = time.monotonic() + _PATIENCE_S
        while self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            for statement in _SCHEMA:
                self._connection.execute(statement)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise _unavailable(self.name, error) from None

    def columns(self, table: str) -> list[str]:
        """See Database."""
        return [str(row[1]) for row in self.rows(f"PRAGMA table_info({table})")]

    def write(self, work: Callable[[Execute], None]) -> None:
        with self._lock:
            try:
                with self._transaction():
                    work(lambda sql, values: self._connection.execute(sql, values).rowcount)
            except sqlite3.Error as error:
                raise _unavailable(self.name, error) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the first error is the one to tell
                self._connection.execute("ROLLBACK")
            raise

    def notified(self, channel: str, timeout_s: float) -> None:
        raise NotImplementedError("a local file is read, not watched")

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class PostgreSQL:
    """A server, reconnected to when the connection was lost. The password of the address is in no error."""

    is_local = False
    day = "to_char(to_timestamp(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"

    def __init__(self, address: str) -> None:
        self._driver = require("psycopg")
        self._address = address
        self.name = _without_password(address)
        self._lock = threading.Lock()
        self._live: psycopg.Connection[tuple[Any, ...]] | None = None
        self._listens: set[str] = set()
        try:
            self.write(self._create)
        except Unavailable as error:
            raise ConfigError(
                f"the database {self.name} cannot be used: {error.message}",
                remedy="start it, or correct the address and the password: postgresql://USER:PASSWORD@HOST/NAME",
            ) from None

    @staticmethod
    def _create(execute: Execute) -> None:
        execute("SELECT pg_advisory_xact_lock(7017213)", ())  # CREATE ... IF NOT EXISTS races with itself
        for statement in _SCHEMA:
            execute(statement, ())

    def _connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._live is None or self._live.closed:
            self._listens.clear()
            self._live = self._driver.connect(
                self._address, autocommit=True, connect_timeout=int(_PATIENCE_S), tcp_user_timeout=10_000
            )
        return self._live

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._answering().execute(_numbered(sql), values).fetchall()
            except self._driver.Error as error:
                raise _unavailable(self.name, error, self._address) from None

    def columns(self, table: str) -> list[str]:
        """See Database."""
        asked = "SELECT column_name FROM information_schema.columns WHERE table_name = ?"
        return [str(row[0]) for row in self.rows(asked, (table,))]

    def write(self, work: Callable[[Execute], None]) -> None:
        with self._lock:
            try:
                connection = self._answering()
                with connection.transaction():
                    work(lambda sql, values: connection.execute(_numbered(sql), values).rowcount)
            except self._driver.Error as error:
                raise _unavailable(self.name, error, self._address) from None

    def _answering(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection that answers now: the server may have been restarted since it was last used.

        Asked before, for a write that failed on the way may have been kept, and must not be tried twice unseen.
        """
        connection = self._connection()
        try:
            connection.execute(b"SELECT 1")
        except self._driver.OperationalError:
            connection.close()
            return self._connection()
        return connection

    def notified(self, channel: str, timeout_s: float) -> None:
        with self._lock:
            try:
                connection = self._connection()
                if channel not in self._listens:
                    connection.execute(f"LISTEN {channel}".encode())
                    self._listens.add(channel)
                for _ in connection.notifies(timeout=timeout_s, stop_after=1):
                    return
            except self._driver.Error as error:
                raise _unavailable(self.name, error, self._address) from None

    def close(self) -> None:
        with self._lock:
            if self._live is not None:
                self._live.close()


def _numbered(sql: str) -> bytes:
    """Nacre's `?` as psycopg's `%s`; bytes, for the driver's types ask for literal strings."""
    return sql.replace("?", "%s").encode()


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}"


def _unavailable(name: str, error: Exception, address: str = "") -> Unavailable:
    reason = " ".join(str(error).split()) or type(error).__name__
    password = urlsplit(address).password
    if password:
        reason = reason.replace(password, "***")
    return Unavailable(f"the database {name} does not answer: {reason}", remedy="see that it runs and has room left")
