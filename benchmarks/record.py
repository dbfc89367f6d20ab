"""Rows of measurements with the machine and versions they were taken on, appended to benchmarks/results/*.csv."""

from __future__ import annotations

import csv
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Processor with the vector units that matter, cores, load at the start, versions."""
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in information.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", named.get("Features", "")).split()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": named.get("model name", platform.processor() or platform.machine()),
        "flags": " ".join(flag for flag in _TELLING_FLAGS if flag in flags),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def append(name: str, rows: Iterable[dict[str, Any]]) -> Path:
    """Appends rows to results/NAME.csv. Raises ValueError when their columns are not those of the file."""
    rows = list(rows)
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    columns = list(rows[0])
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            known = next(csv.reader(file))
        if known != columns:
            raise ValueError(f"{path} has the columns {known}, these rows have {columns}: move the old file away")
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
    return path


def spread(values: Sequence[float]) -> str:
    """Median, and the lowest and highest value."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
