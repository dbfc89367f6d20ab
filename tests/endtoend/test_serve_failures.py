"""What can go wrong around a gateway, through the real command: told at the start (exit code 2), or while it runs."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_upstream import answers
from served_process import refused, served, upstream_beside

from nacre.lifecycle.serve.state.ledger import StoredLedger

pytestmark = pytest.mark.slow
MODEL = "http://127.0.0.1:1/v1#m"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


def config(folder: Path, more: str = "", url: str = "http://127.0.0.1:1/v1") -> str:
    file = folder / "g.yaml"
    file.write_text(f"models: {{m: {{upstream: {{address: '{url}'}}}}}}\n{more}", encoding="utf-8")
    return str(file)


def get(url: str, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url.removesuffix("/v1") + path, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask(url: str) -> str:
    with urllib.request.urlopen(f"{url}/chat/completions", BODY, timeout=20) as reply:
        reply.read()
        return str(reply.headers["x-nacre-id"])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_port_in_use_names_the_next(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for more in ([], ["--workers", "2"]):
            said = refused(tmp_path, MODEL, "--port", str(port), *more)
            assert "is in use" in said
            assert f"--port {port + 1}" in said
    assert "cannot be listened on" in refused(tmp_path, MODEL, "--host", "192.0.2.1")
    assert "--port: " in refused(tmp_path, MODEL, "--port", "99999")


@pytest.mark.parametrize(
    ("state", "variables", "said"),
    [
        ("database_variable: NO_SUCH", {}, "the environment variable NO_SUCH holds nothing"),
        ("database_variable: PLACE", {"PLACE": "postgresql://u:hunter2@127.0.0.1:1/n"}, "127.0.0.1:1/n cannot be used"),
        ("database_variable: PLACE", {"PLACE": "postgresql://u:hunter2@h:port/n"}, "cannot be used"),
        ("database_variable: PLACE", {"PLACE": "mysql://u:hunter2@h/n"}, "postgresql://USER:PASSWORD@HOST/NAME"),
        ("limits: redis, redis_variable: NO_SUCH", {}, "the environment variable NO_SUCH holds nothing"),
        ("limits: redis, redis_variable: PLACE", {"PLACE": "redis://:hunter2@127.0.0.1:1/0"}, "Redis at redis://127"),
        ("limits: redis, redis_variable: PLACE", {"PLACE": "redis://:hunter2@h:port/0"}, "cannot be used"),
        ("limits: redis, redis_variable: PLACE", {"PLACE": "hunter2"}, "cannot be used"),
        ("database: FILE/gateway.db", {}, "folder that can be written"),
    ],
)
def test_what_state_needs_is_tried_at_the_start(
    state: str, variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    section = f"state: {{{state.replace('FILE', str(tmp_path / 'file'))}}}\n"
    told = refused(tmp_path, config(tmp_path, section), "--port", "0", **variables)
    assert said in told
    assert "hunter2" not in told


def test_folders_that_cannot_be_written_and_models_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used" in refused(tmp_path / "file" / "home", MODEL, "--port", "0")
    log = f"watch: {{log: {{to: {tmp_path}/none/requests.jsonl}}}}\n"
    assert "watch.log.to" in refused(tmp_path, config(tmp_path, log), "--port", "0")
    assert "nothing-here" in refused(tmp_path, "nothing-here", "--port", "0")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(tmp_path, str(tmp_path / "empty"), "--port", "0")
    assert "does not exist" in refused(tmp_path, str(tmp_path / "none.yaml"))
    assert "name everything in one file" in refused(tmp_path, config(tmp_path), MODEL)
    assert "did you mean 'deploy'" in refused(tmp_path, "depoy", config(tmp_path))
    key = config(tmp_path).replace("g.yaml", "k.yaml")
    Path(key).write_text("models: {m: {upstream: {address: 'https://h.example/v1', key_variable: NO_KEY}}}\n")
    for workers in ("1", "2"):
        assert "NO_KEY" in refused(tmp_path, key, "--port", "0", "--workers", workers)


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit and /dev/full are Linux's")
def test_a_disk_that_fills_up_is_said_and_nothing_answered_is_lost(tmp_path: Path) -> None:
    """Files may grow no more for a while: the ledger waits, says so, and writes everything when there is room."""
    with (
        upstream_beside(answers("hi")) as upstream,
        served(tmp_path, config(tmp_path, "watch: {log: {to: none}}\n", upstream.url)) as (process, url),
    ):
        answered = [ask(url) for _ in range(3)]
        assert json.loads(get(url, "/readyz")[1]) == {"status": "ready", "down": {}, "ledger": None}
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        answered += [ask(url) for _ in range(5)]
        until(lambda: json.loads(get(url, "/readyz")[1])["ledger"] is not None)
        status, said = get(url, "/readyz")
        assert status == 200  # it still takes requests: 10,000 entries may wait
        assert "gateway.db does not answer" in json.loads(said)["ledger"]
        assert int(get(url, "/metrics")[1].split(b"\nnacre_ledger_waiting ")[1].split()[0]) >= 5
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until(lambda: json.loads(get(url, "/readyz")[1])["ledger"] is None)
        answered += [ask(url) for _ in range(2)]
        process.terminate()
        assert process.wait(30) == 0
    ledger = StoredLedger(tmp_path / "serve" / "gateway.db", journal=tmp_path / "serve")
    entered = {one.id for one in ledger.recent(100)}
    asyncio.run(ledger.close())
    assert set(answered) == entered


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_log_on_a_full_disk_costs_lines_that_are_counted_and_no_request(tmp_path: Path) -> None:
    with (
        upstream_beside(answers("hi")) as upstream,
        served(tmp_path, config(tmp_path, "watch: {log: {to: /dev/full}}\n", upstream.url)) as (_, url),
    ):
        for _ in range(4):
            ask(url)
        until(lambda: b"nacre_log_lines_dropped_total 4" in get(url, "/metrics")[1])
