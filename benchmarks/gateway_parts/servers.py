"""The servers under test, each a process of its own, and what the system says of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gateway_parts.load import PARTS
from nacre.lifecycle.serve.contract import Allowance
from nacre.lifecycle.serve.state.keys import KeyStore

PRICE = {"input_per_million": 1.0, "output_per_million": 4.0}
LITELLM_KEY = "sk-bench-0000000000000000"
_START_S = 90.0


@dataclass
class Running:
    """A server: its port, its process, the key to ask with."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    key: str = "none"
    log: Path = field(default_factory=Path)

    def resident_mib(self) -> float:
        """Memory of the process and its children."""
        pages = sum(_statm(pid) for pid in (self.process.pid, *children(self.process.pid)))
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_s(self) -> float:
        """Processor time of the process and its children."""
        ticks = sum(_ticks(pid) for pid in (self.process.pid, *children(self.process.pid)))
        return ticks / os.sysconf("SC_CLK_TCK")

    def handles(self) -> int:
        """Open file handles."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(
    name: str,
    command: Sequence[str],
    port: int,
    folder: Path,
    environment: Mapping[str, str],
    ready: str,
    key: str = "none",
) -> Iterator[Running]:
    """A server until the block ends; raises SystemExit with its last words where it does not start."""
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        child = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=out, cwd=folder)
    try:
        _wait(child, f"http://127.0.0.1:{port}{ready}", log)
        yield Running(name, port, child, key, log)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def mock(folder: Path, faults: int | None = None) -> Iterator[Running]:
    """The mock upstream."""
    port = free_port()
    command = [sys.executable, "-m", "gateway_parts.mock", str(port)]
    command += ["--faults", str(faults)] if faults is not None else []
    with process("mock", command, port, folder, {"PYTHONPATH": str(PARTS.parent)}, "/stats") as running:
        yield running


def gateway_config(port: int, upstream: int, folder: Path, **more: object) -> Path:
    """A config with keys, limits, ledger, masking, prices and the request log on."""
    address = f"http://127.0.0.1:{upstream}/v1"
    config = {
        "listen": {"host": "127.0.0.1", "port": port},
        "models": {"mini": {"upstream": {"address": address, "abilities": ["chat", "stream"]}, "price": PRICE}},
        "keys": {"required": True},
        "state": {"database": str(folder / "gateway.db")},
        "masking": {"default": "mask"},
        "watch": {"log": {"to": str(folder / "requests.jsonl")}},
        **more,
    }
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@contextmanager
def gateway(
    folder: Path, upstream: int, keys: Mapping[str, Allowance] | None = None, admins: Sequence[str] = (), **more: object
) -> Iterator[Running]:
    """Nacre's gateway as its users start it. Without `keys` one is made, with limits far above what is asked."""
    port, database = free_port(), folder / "gateway.db"
    environment = {"NACRE_HOME": str(folder)}
    os.environ.update(environment)  # the key store's files stand beside the gateway's
    wide = Allowance(10**8, 10**11, 10**4, 1e9, 10**12)
    store = KeyStore(str(database))
    secrets = {
        name: store.create(name, allowance=one, is_admin=name in admins).secret
        for name, one in (keys or {"bench": wide}).items()
    }
    store.close()
    (folder / "secrets.json").write_text(json.dumps(secrets), encoding="utf-8")
    config = gateway_config(port, upstream, folder, **more)
    command = [sys.executable, "-m", "nacre.cli.main", "serve", str(config)]
    with process("nacre", command, port, folder, environment, "/healthz", next(iter(secrets.values()))) as running:
        yield running


@contextmanager
def bare(folder: Path, upstream: int, kind: str) -> Iterator[Running]:
    """The floor of the stack: uvicorn with an application that does nothing else, or only passes on (`floor.py`)."""
    port = free_port()
    command = [sys.executable, "-m", "gateway_parts.floor", str(port), kind, str(upstream)]
    path = os.pathsep.join(filter(None, (str(PARTS.parent), os.environ.get("PYTHONPATH"))))
    with process(f"bare-{kind}", command, port, folder, {"PYTHONPATH": path}, "/healthz") as running:
        yield running


@contextmanager
def litellm(folder: Path, upstream: int, python: Path) -> Iterator[Running]:
    """The LiteLLM proxy of another virtual environment: one worker, a master key, no database."""
    port = free_port()
    model = {"model": "openai/mini", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "mini", "litellm_params": model}],
        "general_settings": {"master_key": LITELLM_KEY}, "litellm_settings": {"telemetry": False},
    }  # fmt: skip
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [str(python.parent / "litellm"), "--config", str(path), "--port", str(port), "--host", "127.0.0.1",
               "--num_workers", "1"]  # fmt: skip
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DISABLE_ADMIN_UI": "True"}
    with process("litellm", command, port, folder, environment, "/health/liveliness", LITELLM_KEY) as running:
        yield running


def children(pid: int) -> list[int]:
    """Processes that a process started, theirs too."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def _statm(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _wait(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} did not answer:\n{log.read_text(errors='replace')[-2000:]}")
