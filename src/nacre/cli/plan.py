"""`nacre plan RECIPE`: what a run would do."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.cli.parser import add_json_option, add_recipe_arguments, add_store_option
from nacre.cli.terminal import coloured, duration, table

if TYPE_CHECKING:
    from nacre.recipe.hardware import Hardware
    from nacre.recipe.plan import Plan
    from nacre.tiers.pretrain.outlook import Outlook

HELP = """
Says what `nacre run` would do, step by step, and why. Nothing is built and no model library is imported. Every mistake
in the recipe is reported at once.

Of pretraining steps it also says what they weigh and take: parameters, tokens, FLOPs, hours and money on named
hardware. With --budget it says what kernel that budget would buy, and which limit decides. Prices are assumed and
editable: a YAML file given by --hardware-file adds machines and replaces blocks of the table that comes with Nacre.

States: cached (made this way before), run, resume (an earlier attempt was cut short), unknown-until-parent.

examples:
  nacre plan recipes/intents.yaml
  nacre plan recipes/intents.yaml --set tune.train.epochs=5
  nacre plan recipes/intents.yaml --hardware h100 --hardware cpu-2-cores
  nacre plan recipes/poet.yaml --hardware h100 --budget 2h
  nacre plan recipes/intents.yaml --json | jq '.steps[].config'
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--config", action="store_true", help="print each step's resolved config too")
    parser.add_argument(
        "--hardware", action="append", metavar="NAME", help="a machine to reckon with; may be repeated (default: all)"
    )
    parser.add_argument("--hardware-file", metavar="FILE", help="your own machines and prices (YAML)")
    parser.add_argument("--budget", metavar="AMOUNT", help="size pretraining by it: 2h, 90min, 1e18flop, 50usd")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.recipe.plan import make
    from nacre.recipe.recipe import load
    from nacre.recipe.references import open_store

    store = open_store(args.store)
    plan = make(load(Path(args.recipe), args.overrides), store)
    store.hashes.save()
    machines, pretraining = _pretraining(args, plan)
    if args.json:
        found = [one.to_dict(machines, args.budget) for one in pretraining]
        print(json.dumps(plan.to_dict() | ({"pretraining": found} if found else {}), ensure_ascii=False, indent=2))
        return 0
    _print_steps(plan)
    for one in pretraining:
        _print_outlook(one, machines, args.budget)
    if args.config:
        for step in plan.steps:
            print(f"\n{step.name}:")
            print(
                "\n".join(f"  {key}: {json.dumps(one, ensure_ascii=False)}" for key, one in step.record.config.items())
            )
    return 0


def _pretraining(args: Namespace, plan: Plan) -> tuple[list[Hardware], list[Outlook]]:
    """The machines that were asked for, and what the plan's pretraining steps are going to take."""
    from nacre.recipe.hardware import choose, machines
    from nacre.tiers.pretrain.outlook import outlooks

    found = outlooks(plan)
    asked = args.hardware or args.hardware_file or args.budget
    if not found and asked:
        print("no step of this recipe pretrains a kernel: there is nothing to size or to price", file=sys.stderr)
    known = machines(Path(args.hardware_file) if args.hardware_file else None) if found or asked else {}
    return choose(args.hardware or list(known), known), found


def _print_steps(plan: Plan) -> None:
    print(coloured(plan.recipe.name, "bold") + (f": {plan.recipe.about}" if plan.recipe.about else ""))
    rows = []
    for step in plan.steps:
        written = plan.recipe.steps[step.name].inputs
        sources = [written[one.input] if Path(one.ref).is_absolute() else one.ref for one in step.record.parents]
        made_from = ", ".join(f"{one.input}={ref}" for one, ref in zip(step.record.parents, sources, strict=True))
        rows.append([step.name, step.draft.stage.name, step.state, step.to_dict()["artifact"], made_from, step.why])
    print(table(rows, ["step", "stage", "state", "artifact", "inputs", "why"]))


def _print_outlook(one: Outlook, machines: list[Hardware], budget: str | None) -> None:
    from nacre.tiers.pretrain.outlook import assumed, explained, money_cell

    weight = one.weight
    print(f"\n{coloured(one.step, 'bold')} ({one.stage})")
    parameters = "unknown" if weight is None else f"{weight.parameters:,}, of them {weight.embedding:,} embedding"
    print(f"  parameters  {parameters}")
    print(f"  tokens      {'unknown' if one.tokens is None else format(round(one.tokens), ',')}")
    print(f"  FLOPs       {'unknown' if one.flops is None else format(one.flops, '.3g')}")
    print(f"  basis       {one.basis}")
    if one.caution:
        print(f"  caution     {one.caution}")
    rows = []
    for machine in machines:
        hours = one.on(machine)["hours"]
        shown = "unknown" if hours is None else duration(3600 * hours)
        rows.append([machine.name, shown, money_cell(one, machine), assumed(machine)])
    print(table(rows, ["hardware", "time", "money", "assumed"]))
    for line in explained(one, machines, budget):
        print(line)
