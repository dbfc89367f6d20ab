"""A bounded client: so many connections, each one request after the other. wrk where it is installed, else our own.

    python -m gateway_parts.load PORT CONNECTIONS SECONDS BODY_FILE [--requests N]

Our own is a raw asyncio protocol in a process of its own; the key is in the environment variable BENCH_KEY. A response
that is not 200, a stream without its end mark and a connection that closes early are errors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

PARTS = Path(__file__).parent
_MARK = b"data: [DONE]"


@dataclass(frozen=True)
class Measured:
    """What a client saw."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    first_error: str = ""
    """What was answered to the first request that went wrong: its beginning, where our own client asked."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


def load(port: int, connections: int, seconds: float, body: Path, key: str, requests: int | None = None) -> Measured:
    """Runs the client in its own process. `requests` ends it by number; wrk ends by time only."""
    environment = {**os.environ, "BENCH_KEY": key, "PYTHONPATH": str(PARTS.parent)}
    if requests is None and shutil.which("wrk"):
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "30s", "-s",
                   str(PARTS / "post.lua"), url, "--", str(body)]  # fmt: skip
    else:
        command = [sys.executable, "-m", "gateway_parts.load", str(port), str(connections), str(seconds), str(body)]
        command += ["--requests", str(requests)] if requests else []
    out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 120, check=True)
    line = next(one for one in out.stdout.splitlines() if one.startswith("MEASURED "))
    return Measured(**json.loads(line.removeprefix("MEASURED ")))


class Run:
    """What all connections share: when to end, and what was seen."""

    def __init__(self, end: float, most: int | None) -> None:
        self.end, self.left = end, most
        self.times: list[float] = []
        self.errors = 0
        self.first_error = ""

    def another(self) -> bool:
        """Whether one more request may be sent."""
        if self.left is not None:
            self.left -= 1
            return self.left >= 0
        return time.perf_counter() < self.end


class Client(asyncio.Protocol):
    """One connection, one request after the other."""

    def __init__(self, request: bytes, run: Run) -> None:
        self._request, self._run = request, run
        self._got = b""
        self._waiting = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self._got[:head].lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            whole = len(self._got) >= head + 4 + int(lower[at + 15 :].split(b"\r\n", 1)[0])
        else:
            whole = self._got.endswith(b"0\r\n\r\n")
        if whole:
            ended = at >= 0 or _MARK in self._got
            self._note(self._got.startswith(b"HTTP/1.1 200") and ended)
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._waiting:
            self._run.errors += 1
        if not self.over.done():
            self.over.set_result(None)

    def _send(self) -> None:
        if not self._run.another():
            self._transport.close()
            return
        self._got, self._waiting, self._began = b"", True, time.perf_counter()
        self._transport.write(self._request)

    def _note(self, good: bool) -> None:
        self._waiting = False
        self._run.times.append(time.perf_counter() - self._began)
        self._run.errors += not good
        if not good and not self._run.first_error:
            self._run.first_error = self._got[:1000].decode(errors="replace")


async def measure(port: int, connections: int, seconds: float, body: bytes, requests: int | None) -> Measured:
    """Opens the connections and waits for their end."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {os.environ['BENCH_KEY']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    began = time.perf_counter()
    run, loop = Run(began + seconds, requests), asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Client(head.encode() + body, run), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.over for _, client in made)), seconds + 100)
    took = time.perf_counter() - began
    cuts = statistics.quantiles(run.times, n=100) if len(run.times) > 1 else [0.0] * 99
    return Measured(len(run.times), took, run.errors, cuts[49] * 1e3, cuts[98] * 1e3, run.first_error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("body", type=Path)
    parser.add_argument("--requests", type=int)
    chosen = parser.parse_args()
    arguments = (chosen.port, chosen.connections, chosen.seconds, chosen.body.read_bytes(), chosen.requests)
    print("MEASURED " + json.dumps(vars(uvloop.run(measure(*arguments)))))
