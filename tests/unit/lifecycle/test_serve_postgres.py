"""Keys and ledger in PostgreSQL, against a real server started in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Allowance, Entry, Refusal
from nacre.lifecycle.serve.state import keys as keys_module
from nacre.lifecycle.serve.state.database import PostgreSQL, connect
from nacre.lifecycle.serve.state.entries import newest
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.usage import Spent, forget, sums

psycopg = pytest.importorskip("psycopg")
pytestmark = pytest.mark.slow
DAY = 1_795_305_600.0  # 2026-11-22 00:00 UTC


def server_account() -> dict[str, Any]:
    """Under which account the server runs: it refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no account `postgres`")
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


class Server:
    """A cluster that can be stopped and started again."""

    def __init__(self, folder: Path, account: dict[str, Any]) -> None:
        self.folder, self.account = folder, account
        self.address = f"postgresql://nacre@/postgres?host={folder}"
        options = ["-A", "trust", "-U", "nacre", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", "-D", str(folder / "data"), *options).check_returncode()
        self.start()

    def start(self) -> None:
        # No port but a socket; fsync is off, for the folder dies with the test.
        words = ["postgres", "-D", str(self.folder / "data"), "-k", str(self.folder), "-c", "listen_addresses=", "-F"]
        self._process = subprocess.Popen(words, cwd=self.folder, stderr=subprocess.DEVNULL, **self.account)
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.address).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-D", str(self.folder / "data"), "-m", "immediate", "-s")
        self._process.wait(timeout=60)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False, **self.account
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not all(map(shutil.which, ("initdb", "postgres", "pg_ctl"))):
        pytest.skip("no PostgreSQL server here (initdb, postgres and pg_ctl are needed)")
    account = server_account()
    with tempfile.TemporaryDirectory(prefix="nacre-pg") as name:  # its path is short, as a socket's must be
        if account:
            os.chown(name, account["user"], account["group"])
        started = Server(Path(name), account)
        yield started
        started.stop()


@pytest.fixture
def address(server: Server) -> Iterator[str]:
    yield server.address
    with psycopg.connect(server.address) as connection:
        connection.execute("TRUNCATE entries, past, keys; UPDATE counters SET value = value + 1 WHERE name = 'keys'")


def entry(identity: str, **changes: Any) -> Entry:
    base = Entry(identity, DAY, "key_a", "chat", "fast", "fast", "ok", 200, 10, 5, "upstream", 15, 0.25, 0.5, 0.1)
    return replace(base, **changes)


def eventually(claim: Any) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ends(store: KeyStore, secret: str) -> bool:
    try:
        store.find(secret)
    except Refusal as refusal:
        return refusal.code == "key_revoked"
    return False


def test_keys_are_seen_and_end_in_every_replica(address: str) -> None:
    one, two = KeyStore(address), KeyStore(address)
    issued = one.create("小王", models=("a-*",), allowance=Allowance(money=2.5, per="day"), is_admin=True)
    eventually(lambda: two.find(issued.secret) is not None)
    assert two.find(issued.secret) == issued.key.caller
    renewed = two.rotate("小王", grace_s=60)
    eventually(lambda: one.find(renewed.secret) is not None)
    two.revoke(issued.key.caller.id)
    for store in (one, two):
        eventually(lambda store=store: ends(store, renewed.secret))
        assert store
        store.close()


def test_the_ledger_gives_the_same_sums_as_sqlite(address: str, tmp_path: Path) -> None:
    entries = [
        entry("a"),
        entry("b", at=DAY - 0.5, key="key_b", money=None, prompt_tokens=None, completion_tokens=None),
        entry("c", at=DAY + 86_399.5, outcome="refused", served=None, status=429, money=0.0, cached=True, masked=2),
        entry("d", our_tokens=99, asked="中文\x00模型", served=None),
        entry("a"),
    ]

    async def run(where: str | Path, journal: Path) -> list[Any]:
        ledger = StoredLedger(where, journal=journal)
        for one in entries:
            ledger.enter(one)
        await ledger.flush()
        by = (["key", "model", "day", "outcome"], ["day"], [])
        found: list[Any] = [ledger.usage(groups) for groups in by]
        found += [ledger.usage(["model"], since=DAY, until=DAY + 1), await ledger.spent("key_a"), ledger.doubled]
        await ledger.close()
        database = connect(where)
        found.append(forget(database, DAY + 1))  # the sums stay
        found += [[sums(database, groups) for groups in by] == found[:3], len(newest(database, 9))]
        database.close()
        return found

    ours, theirs = asyncio.run(run(tmp_path / "g.db", tmp_path)), asyncio.run(run(address, tmp_path / "pg"))
    assert theirs == ours
    assert theirs[4] == Spent(45, 0.5)
    assert theirs[6:] == [1, True, 3]


def test_a_server_that_restarts_loses_nothing(server: Server, address: str, tmp_path: Path) -> None:
    async def run() -> None:
        ledger, keys = StoredLedger(address, journal=tmp_path), KeyStore(address)
        issued = keys.create("bot")
        ledger.enter(entry("before"))
        await ledger.flush()
        server.stop()
        try:
            for number in range(20):
                ledger.enter(entry(f"r{number}"))
            eventually(lambda: ledger.trouble is not None)
        finally:
            server.start()
        await ledger.flush()
        assert ledger.usage([])[0]["requests"] == 21
        keys.create("another")
        eventually(lambda: keys.find(issued.secret) is not None)
        await ledger.close()
        keys.close()

    asyncio.run(run())


def test_keys_that_could_not_be_read_for_long_are_trusted_no_more(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyStore(address)
    issued = keys.create("bot")
    eventually(lambda: keys.find(issued.secret) is not None)
    monkeypatch.setattr(keys_module, "_STALE_S", 0.0)
    server.stop()
    try:
        with pytest.raises(Refusal) as refused:
            keys.find(issued.secret)
        assert refused.value.status == 503
    finally:
        server.start()
    keys.close()


def test_two_replicas_may_start_at_once(address: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with psycopg.connect(address) as connection:
        connection.execute("DROP TABLE IF EXISTS entries, keys, counters")
    with ThreadPoolExecutor(8) as pool:
        for database in pool.map(connect, [address] * 8):
            assert isinstance(database, PostgreSQL)
            database.close()


def test_a_wrong_database_is_told_without_the_password(address: str) -> None:
    with pytest.raises(ConfigError) as error:
        connect(address.replace("nacre@/postgres", "nacre:hunter2@/nowhere"))
    assert "nowhere" in str(error.value)
    assert "hunter2" not in str(error.value)
