"""`nacre doctor`: what this machine has, and what it lacks."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from nacre.cli.parser import add_json_option, add_store_option
from nacre.cli.terminal import coloured, table

HELP = """
Says what this machine has (Python, memory, disk, torch and its devices, optional packages, data sets, caches, the
store), what is missing, what one goes without, and how to get it. Exits with 1 when something is broken.

examples:
  nacre doctor
  nacre doctor --deep            read every byte of the store and compare it with its records
  nacre doctor --json
"""
_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--deep", action="store_true", help="read every byte of the store")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.recipe.health import examine
    from nacre.recipe.references import open_store

    checks = examine(open_store(args.store), deep=args.deep)
    broken = [check for check in checks if check.state == "problem"]
    if args.json:
        print(json.dumps({"checks": [check.to_dict() for check in checks], "healthy": not broken}, ensure_ascii=False))
        return 1 if broken else 0
    rows = [[check.area, check.state, check.what] for check in checks]
    for line in table(rows, ["area", "state", "what"]).splitlines():
        print(line)
    todo = [check for check in checks if check.remedy]
    if todo:
        print("\nremedies")
    for check in todo:
        print(f"  {coloured(check.state, _COLOURS[check.state])} {check.area}: {check.what}\n    -> {check.remedy}")
    return 1 if broken else 0
