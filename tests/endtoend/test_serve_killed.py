"""The gateway killed with SIGKILL under load, again and again, in the middle of SQLite's commits and checkpoints."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from raw_upstream import Heard, Line, completion, events, streams, whole
from served_process import served, upstream_beside

from nacre.lifecycle.serve.contract import Allowance
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.state.ledger import StoredLedger

ROUNDS, CLIENTS, BUDGET, COST = 6, 8, 400, 10

# Read by Python at its start. Every commit of the ledger is followed by a checkpoint of the write-ahead log; one of
# them, some milliseconds after it began, is the last thing that the process does.
KILLER = """
import os, signal, sqlite3, threading, time

class Connection(sqlite3.Connection):
    left, has_entries = int(os.environ["KILL_AFTER_COMMITS"]), False

    def executemany(self, sql, *more):
        Connection.has_entries |= "entries" in sql
        return super().executemany(sql, *more)

    def execute(self, sql, *more):
        Connection.has_entries |= "INTO entries" in sql
        if sql.startswith("COMMIT") and Connection.has_entries:
            Connection.left -= 1
            if Connection.left == 0:
                threading.Thread(target=self.end, daemon=True).start()
        return super().execute(sql, *more)

    def end(self):
        time.sleep(float(os.environ["KILL_DELAY_S"]))
        os.kill(os.getpid(), signal.SIGKILL)

def connect(*arguments, plain=sqlite3.connect, **options):
    connection = plain(*arguments, factory=Connection, **options)
    connection.execute("PRAGMA wal_autocheckpoint = 1")
    return connection

sqlite3.connect = connect
"""


@dataclass
class Load:
    """What the clients of all rounds got: ids of whole answers, and refusals for want of budget."""

    answered: list[str] = field(default_factory=list)
    streamed: int = 0
    refused: Counter[int] = field(default_factory=Counter)


async def answers_slowly(heard: Heard, line: Line) -> None:
    """An answer over some milliseconds, so that a kill finds streams half way."""
    if not heard.body.get("stream"):
        await asyncio.sleep(0.005)
        await line.send(whole(200, json.dumps(completion(heard, "hello", "raw")).encode()))
        return
    await streams(*(part for event in events(heard, "hello", "raw") for part in (event, 0.003)))(heard, line)


def ask(url: str, secret: str, name: str, stream: bool, load: Load) -> None:
    """One client: asks until the gateway is gone."""
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "user": name,
        "max_tokens": 3,
    }
    data = json.dumps(body | {"stream": stream}).encode()
    while True:
        request = urllib.request.Request(
            f"{url}/chat/completions", data, {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                got = reply.read()
            if stream and b"data: [DONE]" not in got:
                return
            load.answered.append(reply.headers["x-nacre-id"])
            load.streamed += stream
        except urllib.error.HTTPError as error:
            load.refused[error.code] += 1
            time.sleep(0.05)
        except (OSError, http.client.HTTPException):  # killed
            return


def one_round(folder: Path, config: Path, secrets: dict[str, str], seed: int, load: Load) -> None:
    """Starts the gateway, asks it until it is killed by its own commit."""
    rng = random.Random(seed)
    environment = {
        "PYTHONPATH": str(folder / "killer"), "KILL_AFTER_COMMITS": str(rng.randint(5, 9)),
        "KILL_DELAY_S": str(rng.uniform(0.0, 0.004)),
    }  # fmt: skip
    with served(folder, str(config), **environment) as (process, url):
        threads = [
            threading.Thread(target=ask, args=(url, secrets[name], name, number % 4 < 2, load))
            for number, name in enumerate(["wide", "poor"] * (CLIENTS // 2))
        ]
        for thread in threads:
            thread.start()
        assert process.wait(60) == -9
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def killed_while_it_recovers(folder: Path, config: Path) -> None:
    """Starts the gateway so that the first thing it enters, what the one before it left, is its end."""
    left = [one.read_bytes() for one in (folder / "serve").glob("journal-*.jsonl")]
    assert any(left)
    command = [sys.executable, "-m", "nacre.cli.main", "serve", str(config), "--port", "0"]
    killer = {"PYTHONPATH": str(folder / "killer"), "KILL_AFTER_COMMITS": "1", "KILL_DELAY_S": "0"}
    environment = os.environ | killer | {"NACRE_HOME": str(folder)}
    ended = subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, timeout=60)
    assert ended.returncode == -9


def entries(database: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = "SELECT e.id, k.name, e.outcome, e.prompt_tokens, e.completion_tokens FROM entries e"
        return connection.execute(f"{query} JOIN keys k ON k.id = e.key").fetchall()


@pytest.mark.slow
def test_killed_in_its_commits_the_gateway_forgets_no_answer_and_no_budget(tmp_path: Path) -> None:
    database, load = tmp_path / "gateway.db", Load()
    (tmp_path / "killer").mkdir()
    (tmp_path / "killer" / "sitecustomize.py").write_text(KILLER)
    store = KeyStore(database)
    allowances = {"wide": Allowance(), "poor": Allowance(tokens=BUDGET)}
    secrets = {name: store.create(name, allowance=one).secret for name, one in allowances.items()}
    store.close()
    with upstream_beside(answers_slowly) as upstream:
        model = {"upstream": {"address": upstream.url, "model": "raw"}}
        config = tmp_path / "gateway.yaml"
        config.write_text(yaml.safe_dump({"models": {"m": model}, "state": {"database": str(database)}}))
        for seed in range(ROUNDS):
            one_round(tmp_path, config, secrets, seed, load)
            killed_while_it_recovers(tmp_path, config)
        heard = Counter(one.body["user"] for one in upstream.heard)
    ledger = StoredLedger(database, journal=tmp_path / "serve")  # as the next start would
    asyncio.run(ledger.close())
    rows = entries(database)
    kept = {row[0]: row for row in rows}
    assert len(kept) == len(rows)
    assert len(load.answered) == len(set(load.answered)) >= 20 * ROUNDS
    assert load.streamed >= 5 * ROUNDS
    missing = [one for one in load.answered if one not in kept]
    assert not missing, f"{len(missing)} of {len(load.answered)}"
    assert {kept[one][2:] for one in load.answered} == {("ok", 7, 3)}
    spent = sum((row[3] or 0) + (row[4] or 0) for row in rows if row[1] == "poor")
    assert set(load.refused) == {402}
    assert BUDGET / 2 <= spent <= BUDGET
    in_flight = ROUNDS * CLIENTS // 2 * COST  # at each kill, what nobody was answered
    assert spent <= heard["poor"] * COST <= BUDGET + in_flight
