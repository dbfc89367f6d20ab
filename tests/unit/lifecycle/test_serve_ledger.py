"""The ledger: nothing waits for it, nothing that it took is lost, and its sums say what they do not know."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Entry, Refusal
from nacre.lifecycle.serve.state import ledger as ledger_module
from nacre.lifecycle.serve.state.database import Execute, Unavailable, connect
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.usage import Spent, sums

DAY = 1_795_305_600.0  # 2026-11-22 00:00 UTC


def entry(identity: str, at: float = DAY, **changes: object) -> Entry:
    base = Entry(identity, at, "key_a", "chat", "fast", "fast", "ok", 200, 10, 5, "upstream", 15, 0.25, 0.5, 0.1)
    return replace(base, **changes)  # type: ignore[arg-type]


def ledger(folder: Path, **options: object) -> StoredLedger:
    return StoredLedger(folder / "gateway.db", journal=folder, **options)  # type: ignore[arg-type]


def count(folder: Path) -> int:
    database = connect(folder / "gateway.db")
    found = int(database.rows("SELECT COUNT(*) FROM entries")[0][0])
    database.close()
    return found


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*"))


def break_database(monkeypatch: pytest.MonkeyPatch, kept: StoredLedger) -> Callable[[], None]:
    """The ledger's database answers no more until what this gives is called."""
    write = kept._writing.write
    down = True

    def broken(work: Callable[[Execute], None]) -> None:
        if down:
            raise Unavailable("the database is down", remedy="-")
        write(work)

    def repair() -> None:
        nonlocal down
        down = False

    monkeypatch.setattr(kept._writing, "write", broken)
    monkeypatch.setattr(ledger_module, "_RETRY_S", 0.02)
    return repair


def test_flushed_entries_are_in_the_database_as_they_were(tmp_path: Path) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        kept.enter(entry("a", cached=True, masked=3, served=None, money=None))
        await kept.flush()
        database = connect(tmp_path / "gateway.db")
        row = database.rows("SELECT * FROM entries")[0]
        assert row == (
            "a", DAY, "key_a", "chat", "fast", None, "ok", 200, 10, 5, "upstream", 15, None, 0.5, 0.1, 1, 3, None, None,
        )  # fmt: skip
        database.close()
        await kept.close()

    asyncio.run(run())


def test_entries_reach_the_database_without_a_flush(tmp_path: Path) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        kept.enter(entry("a"))
        for _ in range(500):
            if not len(kept):
                break
            await asyncio.sleep(0.02)
        assert count(tmp_path) == 1
        await kept.close()
        await kept.close()

    asyncio.run(run())


def test_many_flushes_at_once_are_all_answered(tmp_path: Path) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)

        async def one(number: int) -> None:
            kept.enter(entry(f"r{number}"))
            await kept.flush()

        await asyncio.gather(*(one(number) for number in range(200)))
        assert count(tmp_path) == 200
        await kept.flush()
        await kept.close()
        assert not journals(tmp_path)

    asyncio.run(run())


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_serve_ledger import entry, ledger
kept = ledger(Path(sys.argv[1]))
for number in range(1000):
    kept.enter(entry(f"r{number}"))
print("entered", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing_that_was_entered(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "entered\n"), done.stderr
    in_database = count(tmp_path)
    kept = ledger(tmp_path)
    assert kept.recovered == 1000 - in_database
    asyncio.run(kept.close())
    assert count(tmp_path) == 1000
    assert not journals(tmp_path)


def test_a_journal_cut_in_a_line_gives_its_whole_entries(tmp_path: Path) -> None:
    dead = ledger_module.Journal(tmp_path)
    dead.write(entry("a"))
    dead.write(entry("b"))
    dead.close(keep=True)
    path = next(path for path in journals(tmp_path) if path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-20])
    kept = ledger(tmp_path)
    assert kept.recovered == 1
    asyncio.run(kept.close())


def test_a_living_process_keeps_its_journal(tmp_path: Path) -> None:
    living = ledger_module.Journal(tmp_path)
    living.write(entry("a"))
    kept = ledger(tmp_path)
    assert kept.recovered == 0
    asyncio.run(kept.close())
    assert len(journals(tmp_path)) == 2
    living.close(keep=False)


def test_an_entry_that_the_database_has_is_not_doubled(tmp_path: Path) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        kept.enter(entry("a"))
        await kept.flush()
        kept.enter(entry("a", money=99.0))
        await kept.flush()
        assert kept.doubled == 1
        assert kept.usage([])[0]["money"] == 0.25
        await kept.close()

    asyncio.run(run())


def test_a_database_that_is_down_loses_nothing_and_refuses_new_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        kept = ledger(tmp_path, capacity=5)
        repair = break_database(monkeypatch, kept)
        for number in range(5):
            kept.room()
            kept.enter(entry(f"r{number}"))
        with pytest.raises(Refusal) as refused:
            kept.room()
        assert (refused.value.status, refused.value.code) == (503, "ledger_full")
        kept.enter(entry("in flight"))  # what was answered is taken all the same
        monkeypatch.setattr(ledger_module, "_FLUSH_S", 0.2)
        with pytest.raises(Unavailable, match="6 entries"):
            await kept.flush()
        repair()
        monkeypatch.setattr(ledger_module, "_FLUSH_S", 60.0)
        await kept.flush()
        assert kept.trouble is None
        kept.room()
        assert count(tmp_path) == 6
        await kept.close()

    asyncio.run(run())


def test_what_could_not_be_written_before_the_end_is_entered_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        break_database(monkeypatch, kept)
        monkeypatch.setattr(ledger_module, "_FLUSH_S", 0.1)
        kept.enter(entry("a"))
        kept.enter(entry("b"))
        await kept.close()
        assert count(tmp_path) == 0

    asyncio.run(run())
    kept = ledger(tmp_path)
    assert kept.recovered == 2
    asyncio.run(kept.close())


def test_what_no_database_takes_is_replaced_and_stops_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        kept.enter(entry("a", asked="x\x00\ud800" + "y" * 1000, prompt_tokens=10**30, money=float("nan")))
        kept.enter(entry("b", seconds=float("inf")))
        await kept.flush()
        asked, tokens, money = kept._reading.rows("SELECT asked, prompt_tokens, money FROM entries WHERE id = 'a'")[0]
        assert asked == "x��" + "y" * 253 + "…"
        assert (tokens, money) == (None, None)
        await kept.close()

    asyncio.run(run())


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = ledger(tmp_path), ledger(tmp_path)

        async def work(kept: StoredLedger, name: str) -> None:
            for number in range(50):
                kept.enter(entry(f"{name}{number}"))
                if number % 10 == 0:
                    await kept.flush()

        await asyncio.gather(work(first, "a"), work(second, "b"))
        await first.close()
        await second.close()
        assert count(tmp_path) == 100

    asyncio.run(run())


def test_a_journal_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="journal"):
        StoredLedger(tmp_path / "gateway.db", journal=tmp_path / "file")


def test_a_full_disk_under_the_journal_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        monkeypatch.setattr(os, "write", lambda file, line: len(line) // 2)
        kept.enter(entry("a"))
        monkeypatch.undo()
        kept.enter(entry("b"))
        await kept.flush()
        assert "journal" in caplog.text
        await kept.close()
        assert count(tmp_path) == 2

    asyncio.run(run())


def test_spent_counts_what_waits_and_what_is_known(tmp_path: Path) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        kept.enter(entry("old", at=DAY - 1))
        kept.enter(entry("a"))
        kept.enter(entry("b", money=None, completion_tokens=None))
        kept.enter(entry("other", key="key_b"))
        assert await kept.spent("key_a") == Spent(40, 0.5)
        assert await kept.spent("key_a", DAY) == Spent(25, 0.25)
        assert await kept.spent("nobody") == Spent()
        await kept.close()

    asyncio.run(run())


def test_sums_read_by_another_connection_equal_what_was_entered(tmp_path: Path) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        for number in range(100):
            kept.enter(entry(f"r{number}", at=DAY + number * 3600, prompt_tokens=number, key=f"key_{number % 3}"))
        await kept.close()

    asyncio.run(run())
    database = connect(tmp_path / "gateway.db")
    rows = sums(database, ["key", "day"])
    assert sum(row["requests"] for row in rows) == 100
    assert sum(row["prompt_tokens"] for row in rows) == sum(range(100))
    assert sum(row["money"] for row in rows) == pytest.approx(25.0)
    assert rows[0]["day"] == "2026-11-22"
    database.close()


def test_recent_has_what_is_not_written_yet_and_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        kept = ledger(tmp_path)
        for number in range(5):
            kept.enter(entry(f"old{number}", DAY + number, key=f"key_{number % 2}", cached=number == 4))
        await kept.flush()
        repair = break_database(monkeypatch, kept)
        kept.enter(entry("fresh", DAY + 9, key="key_1", first_token_s=None))
        assert [one.id for one in kept.recent(3)] == ["fresh", "old4", "old3"]
        assert [one.id for one in kept.recent(10, "key_1")] == ["fresh", "old3", "old1"]
        assert kept.recent(2)[1] == entry("old4", DAY + 4, key="key_0", cached=True)  # as it was entered
        assert kept.entry("fresh") == entry("fresh", DAY + 9, key="key_1", first_token_s=None)
        assert kept.entry("old1") == entry("old1", DAY + 1, key="key_1")
        assert kept.entry("nobody") is None
        repair()
        await kept.flush()
        assert [one.id for one in kept.recent(3)] == ["fresh", "old4", "old3"]
        await kept.close()

    asyncio.run(run())
