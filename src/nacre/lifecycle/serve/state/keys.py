"""API keys: made once, shown once, kept as a hash; revoked in every process at once.

A secret is `nacre-` and 32 random bytes in base 62. It is stored as its SHA-256, without a pepper and without a slow
hash: both defend against guessing, and 256 random bits cannot be guessed. A pepper would be one more file to carry to
every replica, and losing it would lose every key. Slow hashes would cost each request milliseconds.

Timing tells nothing: what is looked up is the hash of what came, of which a sender controls no prefix.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from nacre.errors import ConfigError, ReferenceNotFound
from nacre.lifecycle.serve.contract import Allowance, Caller, Json, Refusal
from nacre.lifecycle.serve.state.database import Execute, Unavailable, connect

PREFIX = "nacre-"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32
_SECRET_LETTERS = 43  # 62 ** 43 > 2 ** 256
_COLUMNS = (
    "id, name, digest, hint, models, allowance, is_admin, created_at, expires_at, revoked_at, old_digest, old_until"
)
_CHANNEL = "nacre_keys"
_STALE_S = 15.0  # keys that could not be read again for so long are trusted no more
_TICK_NS = 50_000_000  # far above the 4 ms in which a kernel counts a file's time
_FORMS_S = 30 * 86_400.0  # how long a form that was taken is remembered
_log = logging.getLogger(__name__)


class FormTaken(ConfigError):
    """A form that made a key or a secret was sent again."""

    def __init__(self) -> None:
        super().__init__("this form was sent before", remedy="open a new one")


@dataclass(frozen=True)
class Key:
    """A key as it is kept. `hint` is the end of its secret; times are Unix time."""

    caller: Caller
    hint: str
    created_at: float
    revoked_at: float | None = None

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Whether it is good for a request."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if _is_past(self.caller.expires_at, now) else "active"

    def plain(self, now: float) -> Json:
        """As a JSON object, without anything secret."""
        caller = self.caller
        return {
            "id": caller.id,
            "name": caller.name,
            "state": self.state(now),
            "hint": f"...{self.hint}",
            "models": list(caller.models),
            "allowance": asdict(caller.allowance),
            "is_admin": caller.is_admin,
            "created_at": self.created_at,
            "expires_at": caller.expires_at,
            "revoked_at": self.revoked_at,
        }


@dataclass(frozen=True)
class Issued:
    """A key with its secret, which exists here only and is not shown by repr."""

    key: Key
    secret: str = field(repr=False)


@dataclass(frozen=True)
class _Secret:
    """One hash that opens a key; `until` ends it before the key does (after a rotation)."""

    digest: str
    key: Key
    until: float | None


class KeyStore:
    """Keys in the database at `address`; implements the contract's `Keys`.

    A counter in the database says when keys changed. With SQLite it is read at every `find` that comes after anything
    was written: the write-ahead log's time and size tell, for a twentieth of what a query costs. With PostgreSQL a
    thread listens for notes of change and reads the counter every second besides, and keys that could not be read again
    for 15 s are refused with 503. The methods that change keys wait for the disk: call them in a thread.
    """

    def __init__(self, address: str | Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._reading = connect(address)
        self._writing = connect(address)
        self._clock = clock
        self._version = -1
        self._by_digest: dict[str, _Secret] = {}
        self._read_at = time.monotonic()
        self._log_file = f"{self._reading.name}-wal"
        self._log_seen: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        self._refresh()
        if self._reading.is_local:
            self._reading.rows("PRAGMA busy_timeout = 50")  # `find` runs in the event loop: it refuses, it never waits
        else:
            self._watcher = threading.Thread(target=self._watch, name="nacre-keys", daemon=True)
            self._watcher.start()

    @property
    def where(self) -> str:
        """The database, without a password."""
        return self._writing.name

    def find(self, secret: str) -> Caller | None:
        """The caller whose secret this is, or None. Revoked and expired ones raise Refusal (401)."""
        digest = digest_of(secret)
        self._see_changes()
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            return None
        now = self._clock()
        state = found.key.state(now)
        if state != "active":
            raise _refusal(f"the key {found.key.caller.id} is {state}", f"key_{state}")
        if _is_past(found.until, now):
            raise _refusal(f"the key {found.key.caller.id} has a new secret; this one has ended", "key_rotated")
        return found.key.caller

    def holder(self, caller_id: str) -> tuple[Caller, str] | None:
        """The caller of an id and a mark of its present secret, which no other secret has; None for an unknown id.
        Revoked and expired ones raise Refusal (401)."""
        self._see_changes()
        for found in self._by_digest.values():
            if found.key.caller.id == caller_id and found.until is None:
                state = found.key.state(self._clock())
                if state != "active":
                    raise _refusal(f"the key {caller_id} is {state}", f"key_{state}")
                return found.key.caller, hashlib.sha256(found.digest.encode()).hexdigest()[:16]
        return None

    def __bool__(self) -> bool:
        """Whether a key was ever made. Revoking the last one does not open the gateway to everybody."""
        self._see_changes()
        return bool(self._by_digest)

    def create(
        self,
        name: str,
        *,
        models: tuple[str, ...] = ("*",),
        allowance: Allowance | None = None,
        expires_at: float | None = None,
        is_admin: bool = False,
        form: str = "",
    ) -> Issued:
        """A new key. Raises ConfigError for an allowance or an expiry that cannot be meant.

        `form` names what asked for it, where that may be sent twice: the second time raises FormTaken.
        """
        now = self._clock()
        wanted = allowance or Allowance()
        _check(name, models, wanted)
        if _is_past(expires_at, now):
            raise ConfigError("the key would have expired already", remedy="give a moment in the future")
        secret = new_secret()
        caller = Caller("key_" + _letters(9), name, models, wanted, expires_at, is_admin)
        key = Key(caller, secret[-4:], now)
        values = (
            caller.id, name, digest_of(secret), key.hint, json.dumps(models), json.dumps(asdict(wanted)),
            int(is_admin), now, expires_at, None, None, None,
        )  # fmt: skip
        self._change(f"INSERT INTO keys ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})", values, form)
        return Issued(key, secret)

    def rotate(self, ref: str, *, grace_s: float = 0.0, form: str = "") -> Issued:
        """A new secret for a key, whose id, budget and entries stay. The old one ends at once, or after `grace_s`.

        `form` as in `create`.
        """
        if grace_s < 0:
            raise ConfigError(f"a grace of {grace_s} s", remedy="give 0 or more")
        key, now, secret = self._active(ref), self._clock(), new_secret()
        sql = "UPDATE keys SET old_digest = digest, old_until = ?, digest = ?, hint = ? WHERE id = ?"
        self._change(sql, (now + grace_s, digest_of(secret), secret[-4:], key.caller.id), form)
        return Issued(Key(key.caller, secret[-4:], key.created_at), secret)

    def revoke(self, ref: str) -> Key:
        """Ends a key at once, everywhere. `ref` is its id, or the name of one key only."""
        key, now = self._active(ref, expired=True), self._clock()
        self._change("UPDATE keys SET revoked_at = ? WHERE id = ?", (now, key.caller.id))
        return Key(key.caller, key.hint, key.created_at, now)

    def list(self) -> list[Key]:
        """Every key, oldest first, revoked and expired ones as well."""
        rows = self._writing.rows(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id")
        return [_key(row) for row in rows]

    def close(self) -> None:
        """Ends the watching thread and the connections."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join(timeout=3.0)
        self._reading.close()
        self._writing.close()

    def _active(self, ref: str, *, expired: bool = False) -> Key:
        states = ("active", "expired") if expired else ("active",)
        keys, now = self.list(), self._clock()
        matching = [key for key in keys if ref == key.caller.id] or [key for key in keys if ref == key.caller.name]
        good = [key for key in matching if key.state(now) in states]
        if len(good) == 1:
            return good[0]
        if good:
            ids = ", ".join(key.caller.id for key in good)
            raise ConfigError(f"{len(good)} keys are named {ref!r}", remedy=f"give the id of one: {ids}")
        why = f"is {matching[-1].state(now)}" if matching else "is not here"
        raise ReferenceNotFound(f"the key {ref!r} {why}", remedy="nacre serve keys list")

    def _change(self, sql: str, values: tuple[Any, ...], form: str = "") -> None:
        def work(execute: Execute) -> None:
            if form:
                now = self._clock()
                execute("DELETE FROM forms WHERE at < ?", (now - _FORMS_S,))
                if not execute("INSERT INTO forms VALUES (?, ?) ON CONFLICT (token) DO NOTHING", (form, now)):
                    raise FormTaken
            execute(sql, values)
            execute("UPDATE counters SET value = value + 1 WHERE name = 'keys'", ())
            if not self._writing.is_local:
                execute(f"NOTIFY {_CHANNEL}", ())

        self._writing.write(work)

    def _see_changes(self) -> None:
        """Reads the keys again where they changed; raises Refusal (503) where that cannot be known."""
        if self._watcher is not None:
            if time.monotonic() - self._read_at > _STALE_S:
                raise Refusal(503, "keys cannot be checked now: try again later", kind="server_error", code="no_keys")
            return
        try:
            if self._is_written():
                self._refresh()
        except Unavailable:
            self._log_seen = None
            _log.exception("keys cannot be read")
            raise Refusal(
                503, "keys cannot be checked now: try again later", kind="server_error", code="no_keys"
            ) from None

    def _is_written(self) -> bool:
        """Whether anybody may have written to the SQLite file since the last look, which is noted as one.

        A log that was written to just now is not trusted: it may be written again within one tick of its clock.
        """
        try:
            seen = os.stat(self._log_file)
        except OSError:
            return True
        mark = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        if mark == self._log_seen:
            return False
        self._log_seen = mark if time.time_ns() - seen.st_mtime_ns > _TICK_NS else None
        return True

    def _refresh(self) -> None:
        with self._lock:
            version = self._reading.rows("SELECT value FROM counters WHERE name = 'keys'")[0][0]
            if version != self._version:
                self._by_digest = _secrets(self._reading.rows(f"SELECT {_COLUMNS} FROM keys"))
                self._version = version
            self._read_at = time.monotonic()

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._reading.notified(_CHANNEL, 1.0)
                self._refresh()
            except Unavailable as error:
                if not self._closing.wait(1.0):
                    _log.warning("keys cannot be read: %s", error.message)


def may_ask(caller: Caller, model: str) -> bool:
    """Whether a model's name matches one of the caller's names or patterns (`*`, `?`, `[...]`; case counts)."""
    return any(fnmatchcase(model, pattern) for pattern in caller.models)


def new_secret() -> str:
    """`nacre-` and 32 bytes from the system's source of randomness, in base 62."""
    number = int.from_bytes(secrets.token_bytes(_SECRET_BYTES), "big")
    letters = []
    for _ in range(_SECRET_LETTERS):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return PREFIX + "".join(letters)


def digest_of(secret: str) -> str:
    """What is kept of a secret: its SHA-256 in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _letters(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


def _is_past(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now


def _refusal(what: str, code: str) -> Refusal:
    return Refusal(401, f"{what}: ask for a new one", kind="authentication_error", code=code)


def _check(name: str, models: tuple[str, ...], allowance: Allowance) -> None:
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ConfigError("a key needs a name of 1 to 200 printable characters", remedy="name who will use it")
    if not models or not all(models):
        raise ConfigError("a key without models can ask for nothing", remedy="name models, or * for all")
    for limit, value in asdict(allowance).items():
        if limit == "per":
            if value not in ("life", "day", "month"):
                raise ConfigError(f"a budget per {value!r}", remedy="give life, day or month")
        elif value is not None and not 0 <= value < float("inf"):
            raise ConfigError(f"the limit {limit} is {value}", remedy="give 0 or more, or leave it out for no limit")


def _key(row: tuple[Any, ...]) -> Key:
    identity, name, _, hint, models, allowance, is_admin, created_at, expires_at, revoked_at, _, _ = row
    caller = Caller(
        identity, name, tuple(json.loads(models)), Allowance(**json.loads(allowance)), expires_at, bool(is_admin)
    )
    return Key(caller, hint, created_at, revoked_at)


def _secrets(rows: list[tuple[Any, ...]]) -> dict[str, _Secret]:
    found = {}
    for row in rows:
        key, digest, old_digest, old_until = _key(row), row[2], row[10], row[11]
        if old_digest is not None:
            found[old_digest] = _Secret(old_digest, key, old_until)
        found[digest] = _Secret(digest, key, None)
    return found
