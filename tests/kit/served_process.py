"""`nacre serve` as a process of its own, and a scripted upstream beside it, for clients that block."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raw_upstream import RawUpstream, Step, raw_upstream


@contextmanager
def upstream_beside(*steps: Step) -> Iterator[RawUpstream]:
    """The scripted upstream in a thread of its own, since the clients here block."""
    ready, stop, held = threading.Event(), threading.Event(), []

    async def run() -> None:
        async with raw_upstream(steps) as upstream:
            held.append(upstream)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield held[0]
    finally:
        stop.set()
        thread.join(20)


@contextmanager
def served(home: Path, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `nacre serve` on a free port, and its address (`http://.../v1`)."""
    command = [sys.executable, "-m", "nacre.cli.main", "serve", *words, "--port", "0"]
    variables = os.environ | {"NACRE_HOME": str(home)} | environment
    process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = [""]
        while " at http" not in lines[-1]:  # after a kill it says first what it has recovered
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        line = lines[-1]
        yield process, line.split(" at ")[1].split()[0]
    finally:
        process.kill()
        process.communicate(timeout=20)


def refused(home: Path, *words: str, **environment: str) -> str:
    """What a `nacre serve` says that does not start: exit code 2, in words."""
    command = [sys.executable, "-m", "nacre.cli.main", "serve", *words]
    variables = os.environ | {"NACRE_HOME": str(home)} | environment
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2, (ended.returncode, ended.stderr)
    assert "Traceback" not in ended.stderr
    assert "remedy: " in ended.stderr
    return ended.stderr
