"""`nacre ladder TASK`: one task at every tier, in one table."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.run import Printer
from nacre.cli.terminal import coloured, table
from nacre.errors import NacreError, UsageError, closest

if TYPE_CHECKING:
    from nacre.ladder.ladder import LadderOptions
    from nacre.ladder.result import LadderResult
    from nacre.ladder.task_file import TaskFile
    from nacre.lineage.store import Store
    from nacre.recipe.plan import Plan

HELP = """
Solves one task at every tier (a classical baseline, relaying a model, prompts, retrieval, fine-tuning, own pretraining)
and compares them on the same test rows: quality with intervals, latency, cost, build time, and whose it is. TASK is a
task file, or `desk`, the support desk that comes with the package. No tier sees the test rows.

A tier that cannot run is a row with its reason. What is complete is not made again, and no call is paid for twice: run
the same command after an interruption or with a larger budget, and it goes on. Reports are kept in the store.

examples:
  nacre ladder desk
  nacre ladder tasks/banking77.yaml --tiers baseline,retrieval,tune --seeds 3
  nacre ladder my-task.yaml --upstream http://127.0.0.1:8000/v1#qwen3 --budget-money 2
  nacre ladder desk --export tune ./my-classifier
"""
_BUDGETS = {"money": float, "tokens": int, "requests": int, "seconds": float}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="a task file (YAML), or a task of the package: desk")
    parser.add_argument("--tiers", metavar="A,B", help="only these tiers")
    parser.add_argument(
        "--upstream", metavar="REF", help="the engine that tiers 1 to 3 call: a folder, model:NAME, URL"
    )
    parser.add_argument("--base", metavar="REF", help="the model that tier 4 tunes")
    parser.add_argument("--seeds", type=int, help="how often trained tiers are repeated")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="TIER.KEY=VALUE", help="config of a tier"
    )
    for name, kind in _BUDGETS.items():
        parser.add_argument(f"--budget-{name}", type=kind, metavar="N", help=f"the most {name} to spend")
    parser.add_argument(
        "--margin", type=float, default=0.0, metavar="SHARE", help="shortfall that is accepted: 0.01 is one point"
    )
    parser.add_argument("--language", choices=("en", "zh"), help="of the report (default: the task's)")
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the HTML report here as well")
    parser.add_argument(
        "--export", nargs=2, metavar=("TIER", "FOLDER"), help="write a tier's rung as one folder that answers, and end"
    )
    parser.add_argument("--no-cache", action="store_true", help="ask engines again what they have answered before")
    parser.add_argument("--direct", action="store_true", help="run local engines in process, not over loopback HTTP")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.ladder.task_file import load
    from nacre.recipe.references import open_store

    file = _with_options(load(args.task), args)
    store = open_store(args.store, fetch=True)
    if args.export:
        return _export(args, store, file.name)
    _check_report(args.report)
    _check_references(args, store)
    from nacre.ladder.ladder import climb

    result = climb(file, store, _options(args))
    if args.report is not None:
        _copy_report(result, args.report)
    if args.json:
        print(json.dumps(result.to_dict(), ensure_ascii=False, indent=2))
    else:
        _print(result)
    return 0 if any(row.ok for row in result.rows) else 1


def _with_options(file: TaskFile, args: Namespace) -> TaskFile:
    from nacre.ladder.ladder import here, with_budget
    from nacre.recipe import yaml12
    from nacre.recipe.recipe import placed
    from nacre.tiers.rung import TIERS

    file = with_budget(file, **{name: getattr(args, f"budget_{name}") for name in _BUDGETS})
    if args.upstream is not None:
        file = replace(file, upstream=here(args.upstream))
    if args.base is not None:
        file = replace(file, base=here(args.base))
    if args.seeds is not None:
        if args.seeds < 1:
            raise UsageError(f"--seeds {args.seeds}: too few", remedy="give 1 or more")
        file = replace(file, seeds=args.seeds)
    tiers = dict(file.tiers)
    for text in args.overrides:
        left, equals, right = text.partition("=")
        tier, *path = left.strip().split(".")
        if not equals or not path or not all(path):
            raise UsageError(f"--set {text}: not of the form TIER.KEY=VALUE", remedy="such as --set tune.effort=quick")
        if tier not in TIERS:
            raise UsageError(f"--set {text}: no tier {tier!r}", remedy=closest(tier, TIERS))
        tiers[tier] = placed(tiers.get(tier) or {}, path, yaml12.loads(right, f"--set {text}"))
    return replace(file, tiers=tiers)


def _options(args: Namespace) -> LadderOptions:
    from nacre.ladder.ladder import LadderOptions
    from nacre.recipe.run import Unwatched

    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: below 0", remedy="give 0 or more")
    tiers = tuple(name.strip() for name in (args.tiers or "").split(",") if name.strip())
    if args.tiers is not None and not tiers:
        raise UsageError(f"--tiers {args.tiers!r} names no tier", remedy="such as --tiers baseline,retrieval")
    return LadderOptions(
        tiers=tiers,
        device=args.device,
        seed=args.seed,
        language=args.language,
        margin=args.margin,
        cached=not args.no_cache,
        through_http=not args.direct,
        watcher=Unwatched() if args.quiet else Climbing(),
    )


class Climbing(Printer):
    """Says on stderr what happens; the tiers are steps of one climb, so their plans are not announced."""

    def planned(self, plan: Plan) -> None:
        pass

    def not_measured(self, tier: str, status: str, error: NacreError) -> None:
        state = coloured(status, "yellow", sys.stderr)
        print(f"{state} {tier}: {error.message}\n  remedy: {error.remedy}", file=sys.stderr, flush=True)


def _export(args: Namespace, store: Store, task: str) -> int:
    from nacre.ladder.using import export, find

    tier, folder = args.export
    rung = find(store, task, tier)
    written = export(store, rung, Path(folder).expanduser())
    if args.json:
        print(json.dumps({"rung": rung.ref, "folder": str(written)}, ensure_ascii=False, indent=2))
    else:
        print(f'{rung.ref} is in {written}\nnext: nacre predict {folder} "a text"')
    return 0


def _check_report(file: Path | None) -> None:
    """Raises UsageError before the work for a report that could not be written after it."""
    if file is None:
        return
    folder, why = file.absolute().parent, ""
    if file.is_dir() or not folder.is_dir():
        why = "is a folder" if file.is_dir() else "is in no folder that exists"
    elif not os.access(folder, os.W_OK):
        why = "is in a folder that cannot be written"
    if why:
        raise UsageError(f"--report {file} {why}", remedy="give a file in a folder that exists, such as report.html")


def _copy_report(result: LadderResult, file: Path) -> None:
    from nacre.lineage.durable import write_atomic

    assert result.report is not None  # `climb` always writes one
    try:
        write_atomic(file.absolute(), Path(result.report).read_bytes())
    except OSError as error:
        remedy = f"copy it from {result.report}"
        raise UsageError(f"--report {file} cannot be written: {error.strerror}", remedy=remedy) from error


def _check_references(args: Namespace, store: Store) -> None:
    """Raises UsageError for an engine or a base that was asked for by option and that nothing here is called by.

    A model of the catalogue that is not on this machine is not such a mistake: its tiers are rows that say so.
    """
    for name in ("upstream", "base"):
        ref = getattr(args, name)
        if ref is None or ref.startswith("model:"):
            continue
        try:
            store.resolve(ref, Path.cwd())
        except NacreError as error:
            raise UsageError(f"--{name} {ref}: {error.message}", remedy=error.remedy) from error


def _print(result: LadderResult) -> None:
    from nacre.ladder.report.text import as_text

    text = as_text(result)
    print(table(text.rows, text.head))
    print("\n" + "\n".join(text.lines))
    print(f"\n{coloured('report:', 'bold')} {result.report}")
    if result.recommended.name is not None:
        print(f'next: nacre predict ladder/{result.task}/{result.recommended.name} "a text"')
