"""Keys: shown once, kept hashed, ended at once, in every process."""

from __future__ import annotations

import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.errors import ConfigError, ReferenceNotFound
from nacre.lifecycle.serve.config import StateConfig
from nacre.lifecycle.serve.contract import Allowance, Caller, Refusal
from nacre.lifecycle.serve.state import database as database_module
from nacre.lifecycle.serve.state.database import Unavailable, connect
from nacre.lifecycle.serve.state.keys import FormTaken, KeyStore, digest_of, may_ask, new_secret
from nacre.lifecycle.serve.state.limits_unshared import refuse_limits


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "serve" / "gateway.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[KeyStore]:
    store = KeyStore(path, clock=clock)
    yield store
    store.close()


def test_a_secret_is_32_random_bytes_in_base_62() -> None:
    secrets = {new_secret() for _ in range(200)}
    assert len(secrets) == 200
    assert all(re.fullmatch(r"nacre-[0-9A-Za-z]{43}", secret) for secret in secrets)


def test_a_secret_opens_its_key_and_no_other(store: KeyStore) -> None:
    allowance = Allowance(requests_per_minute=3, money=1.5, per="day")
    issued = store.create("小王", models=("gpt-*", "intents"), allowance=allowance, is_admin=True)
    found = store.find(issued.secret)
    assert found == issued.key.caller
    assert found is not None
    assert (found.name, found.models, found.allowance, found.is_admin) == (
        "小王",
        ("gpt-*", "intents"),
        allowance,
        True,
    )
    for wrong in ("", "nacre-", issued.secret[:-1], issued.secret + "x", digest_of(issued.secret), "\ud800", "密钥"):
        assert store.find(wrong) is None


def test_the_secret_is_in_no_file_and_no_repr(store: KeyStore, path: Path) -> None:
    issued = store.create("bot")
    renewed = store.rotate("bot", grace_s=60)
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for secret in (issued.secret, renewed.secret):
        assert secret.encode() not in stored
        assert digest_of(secret).encode() in stored
        assert secret not in repr(issued) + repr(renewed) + repr(store.list()) + str(renewed.key.plain(0.0))


def test_the_file_is_its_owners_only(store: KeyStore, path: Path) -> None:
    store.create("bot")
    for file in (path, *path.parent.glob("gateway.db-*")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_revocation_holds_at_once_in_every_process(store: KeyStore, path: Path) -> None:
    running = KeyStore(path)
    issued = store.create("bot")
    assert running.find(issued.secret) is not None
    program = "import sys; from nacre.lifecycle.serve.state.keys import KeyStore; KeyStore(sys.argv[1]).revoke('bot')"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=120)
    for one in (running, store):
        with pytest.raises(Refusal, match="revoked") as refused:
            one.find(issued.secret)
        assert (refused.value.status, refused.value.kind) == (401, "authentication_error")
    running.close()


def test_an_expired_key_is_refused_with_the_reason(store: KeyStore, clock: Clock) -> None:
    issued = store.create("bot", expires_at=clock.now + 10)
    assert store.find(issued.secret) is not None
    clock.now += 10
    with pytest.raises(Refusal, match="expired") as refused:
        store.find(issued.secret)
    assert refused.value.status == 401
    assert store.list()[0].state(clock.now) == "expired"


def test_a_rotated_key_keeps_its_id_and_its_old_secret_for_the_grace(store: KeyStore, clock: Clock) -> None:
    issued = store.create("bot", allowance=Allowance(tokens=5))
    renewed = store.rotate(issued.key.caller.id, grace_s=60)
    assert store.find(renewed.secret) == store.find(issued.secret) == issued.key.caller
    clock.now += 60
    with pytest.raises(Refusal, match="new secret"):
        store.find(issued.secret)
    assert store.find(renewed.secret) == issued.key.caller


def test_a_rotation_without_grace_ends_the_old_secret_at_once(store: KeyStore) -> None:
    issued = store.create("bot")
    renewed = store.rotate("bot")
    with pytest.raises(Refusal):
        store.find(issued.secret)
    assert store.find(renewed.secret) is not None
    store.revoke("bot")
    with pytest.raises(Refusal, match="revoked"):
        store.find(renewed.secret)


def test_revoking_the_last_key_does_not_open_the_gateway(store: KeyStore) -> None:
    assert not store
    store.create("bot")
    store.revoke("bot")
    assert store


def test_a_name_that_means_several_keys_or_none_is_refused(store: KeyStore) -> None:
    first, second = store.create("bot"), store.create("bot")
    with pytest.raises(ConfigError, match="2 keys") as error:
        store.revoke("bot")
    assert first.key.caller.id in error.value.remedy
    store.revoke(second.key.caller.id)
    assert store.revoke("bot").caller.id == first.key.caller.id
    with pytest.raises(ReferenceNotFound, match="is revoked"):
        store.rotate("bot")
    with pytest.raises(ReferenceNotFound, match="is not here"):
        store.revoke("nobody")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("", {}),
        ("a\nb", {}),
        ("bot", {"models": ()}),
        ("bot", {"allowance": Allowance(money=-1.0)}),
        ("bot", {"allowance": Allowance(money=float("nan"))}),
        ("bot", {"allowance": Allowance(per="week")}),  # type: ignore[arg-type]
        ("bot", {"expires_at": 5.0}),
    ],
)
def test_a_key_that_cannot_be_meant_is_not_made(store: KeyStore, name: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        store.create(name, **options)  # type: ignore[arg-type]
    assert not store


def test_scopes_are_names_and_patterns() -> None:
    caller = Caller("key_1", "bot", ("gpt-*", "intents"))
    assert [may_ask(caller, name) for name in ("gpt-4o", "intents", "GPT-4o", "intents2", "my-gpt-4", "*")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert may_ask(Caller("key_2", "all"), "anything")


def test_keys_that_cannot_be_read_are_not_guessed(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    issued = store.create("bot")

    def broken(*_: object) -> None:
        raise Unavailable("the disk is gone", remedy="-")

    monkeypatch.setattr(store._reading, "rows", broken)
    with pytest.raises(Refusal) as refused:
        store.find(issued.secret)
    assert refused.value.status == 503
    assert issued.secret not in caplog.text


@pytest.mark.parametrize(
    "address", ["mysql://host/db", "/proc/nowhere/gateway.db", "postgresql://a:hunter2@127.0.0.1:1/x"]
)
def test_an_address_that_cannot_be_used_is_told_at_the_start(address: str) -> None:
    with pytest.raises(ConfigError) as error:
        KeyStore(address)
    assert "hunter2" not in str(error.value)


def test_a_file_that_is_no_database_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at " * 100)
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        connect(tmp_path / "notes.txt")


def test_a_database_of_another_version_is_refused(path: Path) -> None:
    connect(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE counters SET value = 99 WHERE name = 'schema'")
    with pytest.raises(ConfigError, match="schema 99"):
        connect(f"sqlite:///{path}")


def test_the_default_file_is_under_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NACRE_HOME", str(tmp_path / "home"))
    connect().close()
    assert (tmp_path / "home" / "serve" / "gateway.db").exists()
    assert database_module.default_address() == str(tmp_path / "home" / "serve" / "gateway.db")


def test_a_change_is_seen_at_once_however_fast_it_follows_the_last_look(tmp_path: Path) -> None:
    """The time of the write-ahead log counts in ticks: what is written within the tick of a look must not be missed."""
    ours, theirs = KeyStore(tmp_path / "keys.db"), KeyStore(tmp_path / "keys.db")
    try:
        for number in range(150):
            issued = theirs.create(f"k{number}")
            assert ours.find(issued.secret) is not None
            if number % 3 == 0:
                time.sleep(0.06)  # the look before it is one that is trusted
                assert ours.find(issued.secret) is not None
            theirs.revoke(issued.key.caller.id)
            with pytest.raises(Refusal, match="revoked"):
                ours.find(issued.secret)
    finally:
        ours.close()
        theirs.close()


def test_a_form_makes_one_key_whichever_process_takes_it(path: Path, clock: Clock) -> None:
    """Two stores on one file stand for two workers."""
    here, there = KeyStore(path, clock=clock), KeyStore(path, clock=clock)
    try:
        made = here.create("a", form="t1")
        for again in (here, there):
            with pytest.raises(FormTaken):
                again.create("a", form="t1")
            with pytest.raises(FormTaken):
                again.rotate(made.key.caller.id, form="t1")
        assert len(there.list()) == 1
        assert there.find(made.secret) is not None, "a form that was sent before changed nothing"
        assert there.rotate(made.key.caller.id, form="t2").key.caller == made.key.caller
        there.create("b")
        there.create("b")
        clock.now += 31 * 86_400
        here.create("c", form="t1")  # forgotten by then
    finally:
        here.close()
        there.close()


@pytest.mark.parametrize("limits", [{"requests_per_minute": 5}, {"money": 1.0}, {"concurrent": 0}])
def test_limits_that_no_worker_would_hold_are_refused_where_the_key_is_made(limits: dict[str, float]) -> None:
    allowance = Allowance(**limits)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="4 workers do not share limits") as caught:
        refuse_limits(allowance, StateConfig(), 4)
    assert "redis" in caught.value.remedy
    refuse_limits(allowance, StateConfig(), 1)
    refuse_limits(allowance, StateConfig(limits="redis", redis_variable="REDIS_URL"), 4)
    refuse_limits(Allowance(), StateConfig(), 4)
