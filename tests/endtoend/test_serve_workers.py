"""Several workers behind one address: killed, orphaned, stopped and asked for sums."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from raw_upstream import Heard, Line, answers, head
from redis_server import redis_server
from served_process import refused, served, upstream_beside

from nacre.lifecycle.serve.contract import Allowance
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.state.ledger import StoredLedger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks for the workers in /proc"),
]
BODY = json.dumps({"model": "raw", "messages": [{"role": "user", "content": "hi"}]}).encode()


def ask(url: str, key: str | None = None) -> str:
    """One request on a connection of its own; its id."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", BODY, headers), timeout=20) as reply:
        reply.read()
        return str(reply.headers["x-nacre-id"])


def metric(url: str, name: str) -> float:
    """The sum over the rows of a metric, as one scrape shows it."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=20) as reply:
        rows = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", reply.read().decode(), re.MULTILINE)
    return sum(float(row) for row in rows)


def quiet(folder: Path, url: str) -> str:
    """A config for two workers whose log does not fill the pipe that nobody reads."""
    file = folder / "quiet.yaml"
    file.write_text(
        f"listen: {{workers: 2}}\nmodels: {{raw: {{upstream: {{address: '{url}'}}}}}}\nwatch: {{log: {{to: none}}}}\n"
    )
    return str(file)


def workers_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_scrape_is_of_all_workers_whoever_answers_it(tmp_path: Path) -> None:
    with (
        upstream_beside(answers("hi")) as upstream,
        served(tmp_path, f"{upstream.url}#raw", "--workers", "2") as (process, url),
    ):
        first, second = workers_of(process.pid)
        os.kill(first, signal.SIGSTOP)  # so that the other one answers these
        for _ in range(7):
            ask(url)
        os.kill(first, signal.SIGCONT)
        until(lambda: all(metric(url, "nacre_requests_total") == 7 for _ in range(8)))
        os.kill(second, signal.SIGSTOP)
        for _ in range(5):
            ask(url)
        os.kill(second, signal.SIGCONT)
        until(lambda: all(metric(url, "nacre_requests_total") == 12 for _ in range(8)))
        assert metric(url, "nacre_request_seconds_count") == 12
        assert metric(url, "nacre_workers") == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_worker_killed_under_load_costs_no_answered_request(tmp_path: Path) -> None:
    answered: list[str] = []
    broken: list[str] = []
    stop = threading.Event()

    with (
        upstream_beside(answers("hi")) as upstream,
        served(tmp_path, quiet(tmp_path, upstream.url)) as (process, url),
    ):

        def load() -> None:
            while not stop.is_set():
                try:
                    answered.append(ask(url))
                except OSError as error:  # its worker was killed
                    broken.append(type(error).__name__)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for killed in workers_of(process.pid):
                until(lambda: len(answered) > 40)
                os.kill(killed, signal.SIGKILL)
                until(lambda killed=killed: killed not in workers_of(process.pid) and len(workers_of(process.pid)) == 2)  # type: ignore[misc]
                answered_then = len(answered)
                until(lambda then=answered_then: len(answered) > then + 40)  # type: ignore[misc]
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert len(broken) <= 8  # those that were under way in a worker that was killed
        until(lambda: metric(url, "nacre_worker_restarts_total") == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read().count("was killed by signal 9") == 2
    serve = tmp_path / "serve"
    ledger = StoredLedger(serve / "gateway.db", journal=serve)
    entered = {one.id for one in ledger.recent(1_000_000)}
    asyncio.run(ledger.close())
    missing = set(answered) - entered
    assert not missing, f"{len(missing)} of {len(answered)}"


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with (
        upstream_beside(answers("hi")) as upstream,
        served(tmp_path, f"{upstream.url}#raw", "--workers", "3") as (process, url),
    ):
        workers = workers_of(process.pid)
        assert len(workers) == 3
        ask(url)
        process.kill()
        until(lambda: not any(lives(one) for one in workers))
        with pytest.raises(OSError, match="refused"):
            ask(url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_the_middle_of_streams_they_end_whole(tmp_path: Path, number: signal.Signals) -> None:
    begun = threading.Semaphore(0)

    async def slowly(heard: Heard, line: Line) -> None:
        await line.send(head(content_type="text/event-stream"))
        for _ in range(6):
            await line.send(b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n')
            begun.release()
            await asyncio.sleep(0.3)
        await line.send(b"data: [DONE]\n\n")
        line.writer.close()

    body = json.dumps(json.loads(BODY) | {"stream": True}).encode()
    got: list[bytes] = []

    def read(url: str) -> None:
        with urllib.request.urlopen(f"{url}/chat/completions", body, timeout=30) as reply:
            got.append(reply.read())

    with (
        upstream_beside(slowly) as upstream,
        served(tmp_path, f"{upstream.url}#raw", "--workers", "2") as (process, url),
    ):
        threads = [threading.Thread(target=read, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            assert begun.acquire(timeout=20)
        until(lambda: len(upstream.heard) == 4)
        process.send_signal(number)
        for thread in threads:
            thread.join(30)
        assert process.wait(30) == 0
    assert [one.endswith(b"data: [DONE]\n\n") for one in got] == [True] * 4
    assert not any(b"error" in one for one in got)


def test_limits_that_workers_do_not_share_are_said(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "serve" / "gateway.db")
    free = keys.create("free").secret
    with (
        upstream_beside(answers("hi")) as upstream,
        served(tmp_path, f"{upstream.url}#raw", "--workers", "2") as (_, url),
    ):
        ask(url, free)
        limited = keys.create("limited", allowance=Allowance(requests_per_minute=5)).secret
        with pytest.raises(urllib.error.HTTPError) as failed:
            ask(url, limited)
        assert failed.value.code == 503
        assert b"limits_not_shared" in failed.value.read()
        said = refused(tmp_path, f"{upstream.url}#raw", "--workers", "2", "--port", "0")
        assert "'limited'" in said
        assert "limits: redis" in said
        assert "'limited'" in refused(tmp_path, f"{upstream.url}#raw", "--workers", "2", "--check")
    keys.close()


def test_limits_in_redis_hold_over_all_workers(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "serve" / "gateway.db")
    limited = keys.create("limited", allowance=Allowance(requests_per_minute=6)).secret
    keys.close()
    file = tmp_path / "g.yaml"

    def tried(url: str) -> int:
        try:
            ask(url, limited)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    with redis_server(tmp_path) as address, upstream_beside(answers("hi")) as upstream:
        file.write_text(
            f"listen: {{workers: 3}}\nmodels: {{raw: {{upstream: {{address: '{upstream.url}'}}}}}}\n"
            "state: {limits: redis, redis_variable: PLACE}\n"
        )
        with served(tmp_path, str(file), PLACE=address) as (_, url), ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(tried, [url] * 24)) == [200] * 6 + [429] * 18


def test_what_no_worker_can_start_with_is_told_once(tmp_path: Path) -> None:
    said = refused(tmp_path, "http://127.0.0.1:1/v1?key_variable=NO_KEY#m", "--port", "0", "--workers", "3")
    assert said.count("NO_KEY") == 2  # what, and the remedy
    for number in ("0", "-1", "1000"):
        assert "--workers: " in refused(tmp_path, "http://127.0.0.1:1/v1#m", "--workers", number)
