"""`nacre run RECIPE`: builds what a recipe describes."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option, add_recipe_arguments, add_store_option
from nacre.cli.terminal import coloured, duration, number, table

if TYPE_CHECKING:
    from nacre.progress import Progress
    from nacre.recipe.plan import Plan, PlannedStep
    from nacre.recipe.run import StepResult

HELP = """
Builds what a recipe describes, step by step, into the store. A step that was made this way before is skipped; one that
was cut short goes on where it stopped, to the same result. Mistakes are reported before any work begins.

Follow a step live in STORE/work/*/out/logs/metrics.jsonl, or with --tensorboard.

examples:
  nacre run recipes/intents.yaml
  nacre run recipes/intents.yaml --set tune.train.epochs=5 --set tune.train.lr=2e-4
  nacre run recipes/intents.yaml --only tune --device cpu
"""
_SHOWN_METRICS = 5


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--only", metavar="STEP", help="run this step alone; the ones before it must be complete")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.add_argument("--tensorboard", action="store_true", help="write logs/tensorboard into each artifact too")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.engine.room import EngineRoom
    from nacre.recipe.recipe import load
    from nacre.recipe.references import open_store
    from nacre.recipe.run import RunOptions, Unwatched
    from nacre.recipe.run import run as run_recipe

    recipe = load(Path(args.recipe), args.overrides)
    watcher = Unwatched() if args.quiet else Printer()
    store = open_store(args.store, fetch=True)
    engines = EngineRoom(cache=store.root / "cache" / "answers")
    results = run_recipe(recipe, store, RunOptions(args.only, args.device, args.tensorboard, watcher, engines))
    if args.json:
        print(
            json.dumps(
                {"recipe": recipe.name, "steps": [one.to_dict() for one in results]}, ensure_ascii=False, indent=2
            )
        )
        return 0
    rows = [
        [one.step, one.state, duration(one.record.cost.seconds), one.ref, _metrics(one, limit=None)] for one in results
    ]
    print(table(rows, ["step", "state", "took", "artifact", "metrics"]))
    print(f"\nartifacts: {results[0].path.parent.parent.parent if results else '-'}")
    for one in results:
        if (one.path / "report.html").is_file():
            print(f"report:    {one.path / 'report.html'}")
    if results:
        print(f"next: nacre show {results[-1].ref}   nacre trace {results[-1].ref}")
    return 0


class Printer:
    """Says on stderr what happens, step by step."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def planned(self, plan: Plan) -> None:
        states = [step.state for step in plan.steps]
        cached = states.count("cached")
        _say(f"{plan.recipe.name}: {len(states)} steps, {cached} cached")

    def begins(self, step: PlannedStep) -> Progress:
        from nacre.progress import Terminal

        self._began = time.monotonic()
        _say(f"{coloured('running', 'cyan', sys.stderr)} {step.name}  {step.draft.stage.name}: {step.why}")
        return Terminal(step.name)

    def waits(self, step: str, holder: str) -> None:
        _say(f"{coloured('waiting', 'yellow', sys.stderr)} {step}: {holder} is making it")

    def ends(self, result: StepResult) -> None:
        took = f"  {duration(time.monotonic() - self._began)}" if result.state == "done" else ""
        state = coloured(result.state, "green", sys.stderr)
        _say(f"{state} {result.step}{took}  {result.ref}  {_metrics(result, limit=_SHOWN_METRICS)}".rstrip())


def _metrics(result: StepResult, *, limit: int | None) -> str:
    items = list(result.record.metrics.items())
    shown = [f"{name} {number(value)}" for name, value in items[:limit]]
    more = [f"(+{len(items) - limit} more)"] if limit is not None and len(items) > limit else []
    return "  ".join([*shown, *more])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
