"""How long `nacre --help` takes in a fresh process, beside an empty Python program. In turns; medians.

python benchmarks/startup.py [--runs 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import record

PROGRAMS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "nacre --help": [str(Path(sys.executable).with_name("nacre")), "--help"],
}


def milliseconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    for command in PROGRAMS.values():  # fills the file cache
        milliseconds(command)
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(runs):
        for name, command in PROGRAMS.items():
            times[name].append(milliseconds(command))
    where = record.machine(["nacre"])
    record.append(
        "startup",
        [
            {
                **where,
                "program": name,
                "runs": runs,
                "median_ms": round(statistics.median(values), 1),
                "lowest_ms": round(min(values), 1),
                "highest_ms": round(max(values), 1),
            }
            for name, values in times.items()
        ],
    )
    for name, values in times.items():
        print(f"{name:16} {record.spread(values)} ms over {runs} runs")


if __name__ == "__main__":
    main()
