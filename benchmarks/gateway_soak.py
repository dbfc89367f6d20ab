"""The gateway under bad upstreams: minutes of random faults, many clients, and then the books are checked.

    python benchmarks/gateway_soak.py --minutes 10 --clients 200 [--seed 1] [--record]

The mock upstream resets, stalls, refuses, answers garbage, cuts streams, trickles and is slow; half of the requests
stream, half go through a declared route; some clients leave before the answer, some inside a stream. What happens to
request number N is decided by N and the seed. Checked at the end:

- every request got a whole answer or an error in OpenAI's shape: none was lost in silence, none cut without an event;
- what a client saw by its id is what the ledger says of it, and nobody else is in the ledger but clients that left;
- every answer that the mock billed is in the ledger with its tokens, and no other; uncounted are clients that left;
- no key was billed more than its budget, by the mock's count; the mock never saw more requests of a key under way at
  once than its limit; no minute had more requests than its rate;
- open handles and tasks are back where they were, memory does not grow; no secret and no prompt is in a log, in the
  metrics or in the ledger; the log has no traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

import record
from gateway_parts.books import PRICE, Books, Seen
from gateway_parts.faults import Leaving, leaving_of
from gateway_parts.servers import Running, gateway, mock
from nacre.lifecycle.serve.contract import Allowance

MARKS = ("kingfisher-in-the-reeds", "anna.meier@example.org")  # in every prompt: they may be in no log
TIMEOUTS = {"connect_s": 5.0, "first_byte_s": 4.0, "between_s": 4.0, "total_s": 20.0}
ALLOWANCES = {
    "wide": Allowance(concurrent=1000),
    "narrow": Allowance(concurrent=4),
    "poor": Allowance(money=0.05),
    "few": Allowance(tokens=8_000),
    "slow": Allowance(requests_per_minute=60),
}
_WEIGHTS = [12, 6, 3, 3, 1]  # of the keys: how often each is used
_LEAVE = ("poor", "few")  # whose clients leave often: what they had costs their budget all the same
_MOST_MIB = 8.0  # that memory may grow between the first and the last fifth of a run
_MOST_HANDLES = 4
_MOST_TASKS = 2


@dataclass(frozen=True)
class Asking:
    """One request: its number, the key it is made with, and whether its client leaves."""

    number: int
    key: str
    secret: str
    leaving: Leaving
    after_s: float

    @property
    def stream(self) -> bool:
        return self.number % 2 == 0

    def body(self) -> dict[str, Any]:
        """What is sent. `max_tokens` is more than the mock ever bills."""
        content = f"{MARKS[0]} #{self.number} key={self.key} write to {MARKS[1]}"
        model = "smart" if self.number % 4 < 2 else "mini"
        plain = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 30}
        return plain | ({"stream": True, "stream_options": {"include_usage": True}} if self.stream else {})


async def one(session: aiohttp.ClientSession, url: str, asking: Asking, seen: Seen) -> None:
    """One request, judged. A client that has seen the headers knows the id under which the gateway enters it."""
    seen.sent += 1
    patience = asking.after_s if asking.leaving == "early" else None
    headers, request = {"Authorization": f"Bearer {asking.secret}"}, None
    try:
        async with (
            asyncio.timeout(patience) as limit,
            session.post(url, json=asking.body(), headers=headers) as answer,
        ):
            request = answer.headers.get("x-nacre-id")
            limit.reschedule(None)
            if asking.leaving == "midway" and answer.status == 200:
                await answer.content.readany()
                answer.close()
                end = "left"
            else:
                end = judged(answer.status, await answer.read(), asking.stream)
    except (aiohttp.ClientError, TimeoutError) as error:
        left = asking.leaving == "early" and isinstance(error, TimeoutError) and request is None
        end = "left" if left else f"lost: {type(error).__name__}"
    seen.ends[end] += 1
    if request is not None:
        seen.by_id[request] = end
    elif end == "left":
        seen.left_early += 1
    if end.startswith("lost"):
        seen.lost.append(f"#{asking.number} {end}")
    if end in ("error 429", "error 402"):
        await asyncio.sleep(0.05)  # a client that does not wait at all measures refusals only


def judged(status: int, body: bytes, stream: bool) -> str:
    """How an answer ended: `ok`, `error ...`, or `lost ...` where nobody said that it is not whole."""
    if status == 200 and stream:
        if b"data: [DONE]" in body:
            return "ok" if b'"error"' not in body else "lost: an error event and the end mark"
        return "error event" if b'"error"' in body else "lost: a stream without its end or an error event"
    try:
        parsed = json.loads(body)
    except ValueError:
        return f"lost: {status} whose body is no JSON"
    if status == 200:
        return "ok" if parsed.get("choices") else "lost: 200 without choices"
    return f"error {status}" if "message" in parsed.get("error", {}) else f"lost: {status} without an error"


async def soak(server: Running, secrets: dict[str, str], seconds: float, clients: int, first: int, seed: int) -> Seen:
    """Clients that ask one request after the other until the time is over. Requests are numbered from `first`."""
    seen, end = Seen(), time.monotonic() + seconds
    numbers = iter(range(first, first + 2**40))
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    url = f"http://127.0.0.1:{server.port}/v1/chat/completions"

    async def client(at: int) -> None:
        rng = random.Random(seed * 1_000_003 + first + at)
        while time.monotonic() < end:
            name, number = rng.choices(list(secrets), _WEIGHTS)[0], next(numbers)
            leaving, after_s = leaving_of(number, seed, number % 2 == 0, name in _LEAVE)
            await one(session, url, Asking(number, name, secrets[name], leaving, after_s), seen)

    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        for at in range(clients):
            group.create_task(client(at))
    return seen


async def watched(server: Running, mib: list[float], *arguments: Any) -> Seen:
    """A soak, while the server's memory is read every half second."""

    async def watch() -> None:
        while True:
            mib.append(server.resident_mib())
            await asyncio.sleep(0.5)

    watcher = asyncio.create_task(watch())
    try:
        return await soak(server, *arguments)
    finally:
        watcher.cancel()


@dataclass(frozen=True)
class State:
    """What the process holds: open handles, and tasks of its loop."""

    handles: int
    tasks: int


def state_of(server: Running, admin: str) -> State:
    """What the process holds now. The metrics of an administrator's key count its tasks."""
    text = _get(server, "/metrics", admin)
    tasks = next(float(line.split()[1]) for line in text.decode().splitlines() if line.startswith("nacre_tasks "))
    return State(server.handles(), int(tasks))


def settled(server: Running, admin: str, before: State) -> State:
    """What it holds once all is over. Idle connections to the mock are closed after seconds: it is waited for them."""
    end = time.monotonic() + 30
    while True:
        time.sleep(1.0)
        now = state_of(server, admin)
        if time.monotonic() > end or not list(_grown(before, now)):
            return now


def _grown(before: State, after: State) -> Iterator[str]:
    if after.handles > before.handles + _MOST_HANDLES:
        yield f"open handles grew from {before.handles} to {after.handles}"
    if after.tasks > before.tasks + _MOST_TASKS:
        yield f"tasks grew from {before.tasks} to {after.tasks}"


def fifths(mib: list[float]) -> tuple[float, float]:
    """Memory in the second and in the last fifth of a run, in MiB: the first fifth fills pools and buffers."""
    part = max(1, len(mib) // 5)
    return statistics.median(mib[part : 2 * part] or mib), statistics.median(mib[-part:])


def run(minutes: float, clients: int, seed: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what is wrong."""
    os.environ["SOAK_KEY"] = upstream_secret = "sk-upstream-" + "7" * 24
    mib: list[float] = []
    with mock(folder, faults=seed) as upstream:
        address = f"http://127.0.0.1:{upstream.port}/v1"
        described = {
            "address": address,
            "abilities": ["chat", "stream"],
            "timeouts": TIMEOUTS,
            "key_variable": "SOAK_KEY",
        }
        model = {"upstream": described, "price": PRICE}
        more = {"models": {"mini": model, "second": model}, "routes": {"smart": ["mini", "second"]}}
        with gateway(folder, upstream.port, {**ALLOWANCES, "admin": Allowance()}, admins=("admin",), **more) as server:
            secrets = json.loads((folder / "secrets.json").read_text())
            asking = {name: secrets[name] for name in ALLOWANCES}
            warm = asyncio.run(soak(server, asking, 2.0, 4, 1, seed))  # what opens once is open
            time.sleep(6.0)
            before = state_of(server, secrets["admin"])
            began = time.monotonic()
            seen = asyncio.run(watched(server, mib, asking, minutes * 60, clients, 10**9, seed))
            lasted = time.monotonic() - began
            after = settled(server, secrets["admin"], before)
            (folder / "metrics.txt").write_bytes(_get(server, "/metrics", secrets["admin"]))
            billed = json.loads(_get(upstream, "/billed"))
    books = Books(folder, {**secrets, "upstream": upstream_secret}, MARKS, billed, warm + seen, ALLOWANCES)
    early, late = fifths(mib)
    wrong = [*seen.lost, *books.problems(), *_grown(before, after)]
    if late > early + _MOST_MIB:
        wrong.append(f"memory grew from {early:.1f} to {late:.1f} MiB")
    figures = {
        "minutes": minutes, "clients": clients, "seed": seed, "sent": seen.sent, "per_s": round(seen.sent / lasted),
        "ends": json.dumps(dict(seen.ends)), "faults": json.dumps(billed["done"]), "lost": len(seen.lost),
        "uncounted": books.unknown(), "most_at_once": json.dumps(billed["most"]),
        "handles": f"{before.handles} to {after.handles}", "tasks": f"{before.tasks} to {after.tasks}",
        "mib": f"{early:.1f} to {late:.1f}", "wrong": len(wrong),
    }  # fmt: skip
    return figures, wrong


def _get(server: Running, path: str, key: str = "none") -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="append to results/gateway_soak.csv")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures, wrong = run(chosen.minutes, chosen.clients, chosen.seed, Path(folder))
    print(json.dumps(figures, indent=1), *(f"WRONG: {one}" for one in wrong[:40]), sep="\n")
    if chosen.record:
        print(record.append("gateway_soak", [{**record.machine(("uvicorn", "aiohttp")), **figures}]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
