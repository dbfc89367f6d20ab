"""A real Redis for tests that need one: a stand-in would prove nothing about its scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The address of a server on a socket in `folder`, until the block ends; skips the test where there is none."""
    program = os.environ.get("NACRE_REDIS_SERVER") or shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here (install it, or set NACRE_REDIS_SERVER to the program)")
    socket = folder / "r.sock"
    words = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not socket.exists() and server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait(timeout=30)
