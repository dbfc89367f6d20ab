"""What every tier reaches: climbs the ladder of each named task and records its rows.

    python benchmarks/ladder.py desk
    python benchmarks/ladder.py tasks/banking77.yaml tasks/law.yaml --store /somewhere
    python benchmarks/ladder.py tasks/banking77.yaml --tiers relay --bare-labels

Tiers that an earlier climb made this way are taken from the store; their recorded seconds count all the same, and
`made_now` says that the wall time is not that of a whole climb.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import record
from nacre.ladder.ladder import LadderOptions, climb
from nacre.ladder.result import LadderResult
from nacre.ladder.task_file import load
from nacre.recipe.plan import Plan, PlannedStep
from nacre.recipe.references import open_store
from nacre.recipe.run import StepResult, Unwatched


class Counting(Unwatched):
    """Counts the steps, and those that were made now."""

    def __init__(self) -> None:
        self.steps, self.made = 0, 0

    def planned(self, plan: Plan) -> None:
        self.steps += len(plan.steps)

    def begins(self, step: PlannedStep) -> Any:
        print(f"  {step.name}: {step.why}", flush=True)
        return super().begins(step)

    def ends(self, result: StepResult) -> None:
        self.made += result.state == "done"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", help="task files, or names of the package's tasks")
    parser.add_argument("--store", help="default: $NACRE_HOME, else .nacre")
    parser.add_argument("--tiers", default="", help="only these, as A,B")
    parser.add_argument("--bare-labels", action="store_true", help="without the descriptions; the task's name says so")
    args = parser.parse_args()
    tiers = tuple(name for name in args.tiers.split(",") if name)
    where = record.machine(["torch", "nacre"]) | {"threads": os.environ.get("OMP_NUM_THREADS", "all")}
    for task in args.tasks:
        watcher, began = Counting(), time.monotonic()
        file = load(task)
        if args.bare_labels:
            file = replace(file, task=replace(file.task, name=f"{file.name}-bare-labels", descriptions={}))
        options = LadderOptions(tiers=tiers, watcher=watcher)
        result = climb(file, open_store(args.store, fetch=True), options)
        whole = {"wall_s": round(time.monotonic() - began), "made_now": f"{watcher.made} of {watcher.steps} steps"}
        record.append("ladder", [where | whole | row for row in rows_of(result)])
        print(result.recommended.why)


def rows_of(result: LadderResult) -> list[Mapping[str, Any]]:
    """One row per tier, those that could not run included."""
    return [
        {
            "task": result.task,
            "metric": result.metric,
            "tier": row.tier,
            "name": row.name,
            "status": row.status,
            "solver": row.solver or row.reason,
            "score": _rounded(row.score, 4),
            "low": _rounded(row.ci_low, 4),
            "high": _rounded(row.ci_high, 4),
            "examples": row.examples,
            "seeds": len(row.seeds),
            "p_against_best": _rounded(row.vs_best.p if row.vs_best else None, 5),
            "latency_ms_p50": _rounded(row.latency_ms_p50, 2),
            "latency_ms_p95": _rounded(row.latency_ms_p95, 2),
            "build_s": _rounded(row.build_seconds, 1),
            "trained_parameters": row.trained_parameters,
            "recommended": row.name == result.recommended.name,
        }
        for row in result.rows
    ]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


if __name__ == "__main__":
    main()
