"""The gateway's cost: requests per second and added latency, beside going direct and beside the LiteLLM proxy.

    python benchmarks/gateway.py [--litellm PYTHON] [--servers ...] [--seconds 10] [--rounds 3] [--memory 100000]

A mock upstream on loopback (raw asyncio protocol), a client in a process of its own (wrk where installed), and the
server between them as its users start it, one worker, with keys, limits, ledger, masking, prices and the request log
on. Every round measures all servers in turn; plain and streaming (12 events). `added` is the latency beyond that of the
direct round. The rows `bare ...` are the floor of the stack: uvicorn with an application that does nothing, or only
passes on. The row `memory` is Nacre's memory before and after so many requests. Appended to results/gateway.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import record
from gateway_parts.load import Measured, load
from gateway_parts.servers import Running, bare, gateway, litellm, mock

PROMPT = (
    "Please answer in one sentence: which of the two invoices that anna.meier@example.org sent us from 13912345678 "
    "last week should be paid first, the one for the desks or the one for the lamps, and why do you think so?"
)
WARM_S = 2.0


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    seconds: float
    rounds: int
    connections: tuple[int, ...]
    memory: int
    servers: tuple[str, ...]


SERVERS = ("direct", "bare asgi", "bare aiohttp", "bare line", "nacre", "litellm")


def bodies(folder: Path) -> dict[str, Path]:
    """The request, plain and streaming; a temperature, so that no cache answers."""
    found = {}
    for mode in ("plain", "stream"):
        message = {"role": "user", "content": PROMPT}
        body: dict[str, Any] = {"model": "mini", "messages": [message], "temperature": 0.7, "max_tokens": 64}
        if mode == "stream":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        found[mode] = folder / f"{mode}.json"
        found[mode].write_text(json.dumps(body, separators=(",", ":")), encoding="utf-8")
    return found


Opener = Callable[[Path, int], AbstractContextManager[Running]]


@contextmanager
def direct(_folder: Path, upstream: int, found: Running) -> Iterator[Running]:
    """The mock itself."""
    yield found


def measure(plan: Plan, python: Path | None, folder: Path) -> list[dict[str, Any]]:
    """All servers in turn, in one go: they share the mock, one is running at a time."""
    rows, machine = [], record.machine(("uvicorn", "aiohttp", "orjson"))
    asked = bodies(folder)
    with mock(folder) as upstream:
        openers = openers_of(plan.servers, upstream, python)
        for number in range(plan.rounds):
            base: dict[tuple[str, int], Measured] = {}
            for name, opener in openers.items():
                at = folder / f"{name}-{number}".replace(" ", "-")
                at.mkdir()
                with opener(at, upstream.port) as server:
                    for row in one_server(server, name, plan, asked, base):
                        rows.append({**machine, "round": number, **row})
                        print(shown(row), flush=True)
    return rows


def openers_of(names: tuple[str, ...], upstream: Running, python: Path | None) -> dict[str, Opener]:
    """What starts each server; the direct one comes first, since the others are compared with it."""
    openers: dict[str, Opener] = {"direct": lambda at, port: direct(at, port, upstream)}
    for name in names:
        if name == "nacre":
            openers[name] = gateway
        elif name == "litellm" and python is not None:
            openers[name] = lambda at, port: litellm(at, port, python)
        elif name.startswith("bare "):
            openers[name] = partial(bare, kind=name.removeprefix("bare "))
    return openers


def one_server(
    server: Running, name: str, plan: Plan, asked: dict[str, Path], base: dict[tuple[str, int], Measured]
) -> Iterator[dict[str, Any]]:
    """The rows of one server in one round; the direct one fills `base`."""
    for mode, body in asked.items():
        load(server.port, 4, WARM_S, body, server.key)
        for connections in plan.connections:
            cpu = server.cpu_s()
            seen = load(server.port, connections, plan.seconds, body, server.key)
            spent = server.cpu_s() - cpu
            below = base.setdefault((mode, connections), seen)
            yield row_of(name, mode, connections, seen, below, spent, (None, server.resident_mib()))
    if name == "nacre" and plan.memory:  # a slow peer would take half an hour; its memory stands in every row
        load(server.port, 16, 600, asked["plain"], server.key, requests=max(plan.memory // 10, 1))
        before, cpu = server.resident_mib(), server.cpu_s()
        seen = load(server.port, 16, 600, asked["plain"], server.key, requests=plan.memory)
        if seen.errors:
            print(f"{seen.errors} requests were refused; the first: {seen.first_error}", file=sys.stderr, flush=True)
        yield row_of(name, "memory", 16, seen, seen, server.cpu_s() - cpu, (before, server.resident_mib()))


def row_of(
    name: str, mode: str, connections: int, seen: Measured, below: Measured, cpu_s: float,
    mib: tuple[float | None, float],
) -> dict[str, Any]:  # fmt: skip
    """One line of the table."""
    return {
        "server": name, "mode": mode, "connections": connections, "requests": seen.requests, "errors": seen.errors,
        "per_second": round(seen.per_second, 1), "p50_ms": round(seen.p50_ms, 3), "p99_ms": round(seen.p99_ms, 3),
        "added_p50_ms": round(seen.p50_ms - below.p50_ms, 3), "added_p99_ms": round(seen.p99_ms - below.p99_ms, 3),
        "cpu_us": round(cpu_s / max(seen.requests, 1) * 1e6, 1),
        "mib_before": None if mib[0] is None else round(mib[0], 1), "mib": round(mib[1], 1),
    }  # fmt: skip


def shown(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    return (
        f"{row['server']:12} {row['mode']:7} {row['connections']:3} {row['per_second']:10.1f}/s  "
        f"p50 {row['p50_ms']:.3f} ms (+{row['added_p50_ms']:.3f})  p99 {row['p99_ms']:.3f} ms  "
        f"{row['cpu_us']:.0f} us CPU  {row['mib']} MiB  {row['errors']} errors"
    )


def summary(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Medians over the rounds, and the ratio to LiteLLM's rate where it was measured."""
    cells: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["mode"], row["connections"], row["server"]), []).append(row)
    rate = {cell: statistics.median(one["per_second"] for one in found) for cell, found in cells.items()}
    for (mode, connections, server), found in cells.items():
        peer = rate.get((mode, connections, "litellm"))
        times = f", {rate[mode, connections, server] / peer:.1f} x LiteLLM" if peer and server == "nacre" else ""
        rates = record.spread([one["per_second"] for one in found])
        added = record.spread([one["added_p50_ms"] for one in found])
        yield f"{mode} {connections} {server}: {rates} requests/s, added p50 {added} ms{times}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", type=Path, help="the python of an environment with litellm[proxy]")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--memory", type=int, default=100_000, help="requests of the memory row; 0 leaves it out")
    parser.add_argument("--no-record", action="store_true", help="do not append to results/gateway.csv")
    chosen = parser.parse_args()
    plan = Plan(chosen.seconds, chosen.rounds, tuple(chosen.connections), chosen.memory, tuple(chosen.servers))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(plan, chosen.litellm, Path(folder))
    print(*summary(rows), sep="\n")
    if not chosen.no_record:
        print(record.append("gateway", rows))


if __name__ == "__main__":
    main()
