"""Which public toolkits pass the traps of accumulation, packing, resume and masking; Nacre is asked by the same rules.

    python benchmarks/traps_peers.py [--only WORD] [--dry]

Every toolkit is compared with itself (one cut of a batch with another, packed with unpacked, resumed with
uninterrupted), on the CPU in float32, with its usual settings. A peer that is not installed is a row that says so: run
this where Nacre has the extras `train`, `data` and `transformers`, beside `trl`, `accelerate` and `lightning`.
Rows go to results/traps_peers.csv.
"""

from __future__ import annotations

import argparse
import io
import os
import traceback
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import record
from trap_checks import accumulation, masking, packing, resume
from trap_checks.given import Check

LINE = "{passes:14}{trap:7} {asks:42} {toolkit:47} {version:7} {measured}"


def measured(check: Check) -> dict[str, str]:
    """One row; what cannot run is a row with the reason, never left out."""
    row = {"trap": check.trap, "asks": check.asks, "toolkit": check.toolkit}
    try:
        row["version"] = version(check.package)
    except PackageNotFoundError:
        return {**row, "version": "", "passes": "not measured", "measured": f"{check.package} is not installed"}
    try:
        with redirect_stdout(io.StringIO()):
            found = check.run()
    except Exception as error:  # noqa: BLE001 - a peer that fails to run is a result of this table
        traceback.print_exc()
        return {**row, "passes": "failed to run", "measured": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
    return {**row, "passes": "yes" if found.passes else "no", "measured": found.measured}


def main() -> None:
    parser = argparse.ArgumentParser(description="which toolkits pass the traps")
    parser.add_argument("--only", default="", help="only what has this word in its trap, question or toolkit")
    parser.add_argument("--dry", action="store_true", help="print, and keep no rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checks = [*accumulation.checks(), *packing.checks(), *resume.checks(), *masking.checks()]
    machine, rows = record.machine(["torch"]), []
    for check in checks:
        if options.only in f"{check.trap} {check.asks} {check.toolkit}":
            rows.append(measured(check))
            print(LINE.format(**rows[-1]), flush=True)
    if rows and not options.dry:
        print(record.append("traps_peers", [{**row, **machine} for row in rows]))


if __name__ == "__main__":
    main()
