"""What a step ran on: versions, processor, device, and the peak memory of one step rather than of the whole process."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nacre
from nacre.errors import UsageError
from nacre.lazy import require

DEVICES = ("auto", "cpu", "cuda", "mps")
_PACKAGES = ("numpy", "torch", "tokenizers", "safetensors", "transformers", "pyarrow", "scikit-learn", "sacrebleu")


def resolve_device(wanted: str) -> str:
    """`auto` becomes the accelerator that is there, else `cpu`. Torch is imported only where there may be one."""
    if wanted == "auto":
        if not _may_have_accelerator():
            return "cpu"
        torch = require("torch")
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted == "cpu":
        return wanted
    torch = require("torch")
    there = torch.cuda.is_available() if wanted == "cuda" else torch.backends.mps.is_available()
    if not there:
        raise UsageError(f"--device {wanted}: torch {torch.__version__} finds none here", remedy="use --device cpu")
    return wanted


def describe_machine(device: str) -> dict[str, Any]:
    """Platform, processor, cores, memory, and the device that was used."""
    described: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": available_cores(),
        "memory_mib": total_memory_mib(),
        "device": device,
    }
    if device == "cuda":
        described["device_name"] = require("torch").cuda.get_device_name()
    return described


def describe_versions() -> dict[str, str]:
    """Python, Nacre with the digest of its own code, and the libraries that are imported right now."""
    found = {"python": platform.python_version(), "nacre": nacre.__version__, "nacre_code": code_digest()}
    for name in _PACKAGES:
        if {"scikit-learn": "sklearn"}.get(name, name) in sys.modules:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue  # imported from a path: it has no version to tell
    return found


@cache
def code_digest() -> str:
    """A digest of Nacre's own source files: which code ran, even between releases."""
    top = Path(nacre.__file__).parent
    total = hashlib.sha256()
    for path in sorted(top.rglob("*.py")):
        total.update(path.relative_to(top).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return "sha256:" + total.hexdigest()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory_mib() -> int | None:
    """Memory of the machine, None where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    except (ValueError, OSError):
        return None


def reset_peak_memory() -> None:
    """Begins a new measurement, where the system can (Linux); elsewhere the peak is that of the process so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_mib() -> float | None:
    """The largest resident memory since `reset_peak_memory`."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        from resource import RUSAGE_SELF, getrusage

        return getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _may_have_accelerator() -> bool:
    return sys.platform == "darwin" or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
