"""The gateway under bad upstreams: minutes of random faults, many clients, and then the books are checked.

    python benchmarks/gateway_soak.py --minutes 10 --clients 200 [--seed 1] [--record]

The mock upstream resets, stalls, refuses, answers garbage, cuts streams and is slow; half of the requests stream, half
go through a declared route. Checked at the end:

- every request got a whole answer or an error in OpenAI's shape: none was lost in silence, none cut without an event;
- the ledger has one entry per request, and its sums of upstream-counted answers are what the mock billed;
- no key spent more than its budget and what was in flight, and concurrency limits held;
- open handles and tasks are back where they were; no secret and no prompt is in a log or the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

import record
from gateway_parts.books import Books, problems_of
from gateway_parts.servers import Running, gateway, mock
from nacre.lifecycle.serve.contract import Allowance

MARK = "kingfisher-in-the-reeds"  # of every prompt: it may be in no log
TIMEOUTS = {"connect_s": 2.0, "first_byte_s": 3.0, "between_s": 3.0, "total_s": 20.0}
ALLOWANCES = {
    "wide": Allowance(concurrent=1000),
    "narrow": Allowance(concurrent=4),
    "poor": Allowance(money=0.01),
    "few": Allowance(tokens=20_000),
    "slow": Allowance(requests_per_minute=120),
}


@dataclass
class Seen:
    """What the clients saw, by how a request ended."""

    ends: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    sent: int = 0
    in_flight: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)


async def one(session: aiohttp.ClientSession, url: str, number: int, key: tuple[str, str], seen: Seen) -> None:
    """One request, judged."""
    name, secret = key
    stream, model = number % 2 == 0, "smart" if number % 4 < 2 else "mini"
    content = f"{MARK} #{number} write to anna.meier@example.org"
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0.5}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    seen.sent += 1
    async with counted(seen, name):
        try:
            async with session.post(url, json=body, headers={"Authorization": f"Bearer {secret}"}) as answer:
                end = judged(answer.status, await answer.read(), stream)
        except (aiohttp.ClientError, TimeoutError) as error:
            end = f"lost: {type(error).__name__}"
    seen.ends[end] += 1
    if end.startswith("lost"):
        seen.lost.append(f"#{number} {end}")
    if end.startswith("error 429") or end.startswith("error 402"):
        await asyncio.sleep(0.05)  # a client that does not wait at all measures refusals only


@asynccontextmanager
async def counted(seen: Seen, name: str) -> AsyncIterator[None]:
    """Counts what is in flight for a key."""
    seen.in_flight[name] += 1
    seen.most[name] = max(seen.most[name], seen.in_flight[name])
    try:
        yield
    finally:
        seen.in_flight[name] -= 1


def judged(status: int, body: bytes, stream: bool) -> str:
    """How an answer ended: `ok`, `error ...`, or `lost ...` where nobody said that it is not whole."""
    if status == 200 and stream:
        if b"data: [DONE]" in body:
            return "error event" if b'"error"' in body else "ok"
        return "error event" if b'"error"' in body else "lost: a stream without its end or an error event"
    try:
        parsed = json.loads(body)
    except ValueError:
        return f"lost: {status} whose body is no JSON"
    if status == 200:
        return "ok" if parsed.get("choices") else "lost: 200 without choices"
    return f"error {status}" if "message" in parsed.get("error", {}) else f"lost: {status} without an error"


async def soak(server: Running, secrets: dict[str, str], minutes: float, clients: int, first: int) -> Seen:
    """Clients that ask one request after the other until the time is over. Requests are numbered from `first`."""
    seen, end = Seen(), time.monotonic() + minutes * 60
    numbers = iter(range(first, first + 2**40))
    connector = aiohttp.TCPConnector(limit=clients)
    timeout = aiohttp.ClientTimeout(total=60)
    url = f"http://127.0.0.1:{server.port}/v1/chat/completions"

    async def client(at: int) -> None:
        rng = random.Random(first + at)
        while time.monotonic() < end:
            name = rng.choices(list(secrets), [20, 2, 1, 1, 1])[0]
            await one(session, url, next(numbers), (name, secrets[name]), seen)

    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        for at in range(clients):
            group.create_task(client(at))
    return seen


def metric(server: Running, name: str, key: str) -> float | None:
    """A metric without labels."""
    url, headers = f"http://127.0.0.1:{server.port}/metrics", {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.split(" ")[0] == name), None)


def run(minutes: float, clients: int, seed: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what is wrong."""
    os.environ["SOAK_KEY"] = upstream_secret = "sk-upstream-" + "7" * 24
    with mock(folder, faults=seed) as upstream:
        address = f"http://127.0.0.1:{upstream.port}/v1"
        one_model = {
            "upstream": {"address": address, "abilities": ["chat", "stream"], "timeouts": TIMEOUTS,
                         "key_variable": "SOAK_KEY"},
            "price": {"input_per_million": 10.0, "output_per_million": 30.0},
        }  # fmt: skip
        more = {"models": {"mini": one_model, "second": one_model}, "routes": {"smart": ["mini", "second"]}}
        admin = {"admin": Allowance()}
        with gateway(folder, upstream.port, {**ALLOWANCES, **admin}, admins=("admin",), **more) as server:
            secrets = json.loads((folder / "secrets.json").read_text())
            asking = {name: secrets[name] for name in ALLOWANCES}
            warm = asyncio.run(soak(server, asking, 0.05, 4, 1))  # what opens once is open
            time.sleep(1.0)
            before = (server.handles(), metric(server, "nacre_tasks", secrets["admin"]), server.resident_mib())
            seen = asyncio.run(soak(server, asking, minutes, clients, 10**9))
            time.sleep(max(TIMEOUTS["between_s"], 5.0))  # what was under way is over
            after = (server.handles(), metric(server, "nacre_tasks", secrets["admin"]), server.resident_mib())
            billed = json.loads(_stats(upstream))
    books = Books(folder, {**secrets, "upstream": upstream_secret}, MARK, billed, warm.sent + seen.sent)
    wrong = [*seen.lost[:20], *problems_of(books, ALLOWANCES, seen.most)]
    wrong += leaks(before, after, clients)
    figures = {
        "minutes": minutes, "clients": clients, "seed": seed, "sent": seen.sent, "ends": json.dumps(dict(seen.ends)),
        "faults": json.dumps(billed["done"]), "lost": len(seen.lost), "handles": f"{before[0]} to {after[0]}",
        "tasks": f"{before[1]} to {after[1]}", "mib": f"{before[2]:.1f} to {after[2]:.1f}", "wrong": len(wrong),
    }  # fmt: skip
    return figures, wrong


def leaks(before: tuple[int, float | None, float], after: tuple[int, float | None, float], clients: int) -> list[str]:
    """Handles and tasks that stayed. Idle connections to upstreams are kept for reuse: as many as clients at most."""
    found = []
    if after[0] > before[0] + clients:
        found.append(f"open handles grew from {before[0]} to {after[0]}")
    if before[1] is not None and after[1] is not None and after[1] > before[1] + 4:
        found.append(f"tasks grew from {before[1]:g} to {after[1]:g}")
    return found


def _stats(upstream: Running) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream.port}/stats", timeout=10) as answer:
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
    print(json.dumps(figures, indent=1), *(f"WRONG: {one}" for one in wrong), sep="\n")
    if chosen.record:
        print(record.append("gateway_soak", [{**record.machine(("uvicorn", "aiohttp")), **figures}]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
