"""`nacre plan RECIPE`: what a run would do."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from nacre.cli.parser import add_json_option, add_recipe_arguments, add_store_option
from nacre.cli.terminal import coloured, table

HELP = """
Says what `nacre run` would do, step by step, and why. Nothing is built and no model library is imported. Every mistake
in the recipe is reported at once.

States: cached (made this way before), run, resume (an earlier attempt was cut short), unknown-until-parent.

examples:
  nacre plan recipes/intents.yaml
  nacre plan recipes/intents.yaml --set tune.train.epochs=5
  nacre plan recipes/intents.yaml --json | jq '.steps[].config'
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--config", action="store_true", help="print each step's resolved config too")
    add_store_option(parser)
    add_json_option(parser)


def run(args: Namespace) -> int:
    from nacre.recipe.plan import make
    from nacre.recipe.recipe import load
    from nacre.recipe.references import open_store

    store = open_store(args.store)
    plan = make(load(Path(args.recipe), args.overrides), store)
    store.hashes.save()
    if args.json:
        print(json.dumps(plan.to_dict(), ensure_ascii=False, indent=2))
        return 0
    print(coloured(plan.recipe.name, "bold") + (f": {plan.recipe.about}" if plan.recipe.about else ""))
    rows = []
    for step in plan.steps:
        written = plan.recipe.steps[step.name].inputs
        sources = [written[one.input] if Path(one.ref).is_absolute() else one.ref for one in step.record.parents]
        made_from = ", ".join(f"{one.input}={ref}" for one, ref in zip(step.record.parents, sources, strict=True))
        rows.append([step.name, step.draft.stage.name, step.state, step.to_dict()["artifact"], made_from, step.why])
    print(table(rows, ["step", "stage", "state", "artifact", "inputs", "why"]))
    if args.config:
        for step in plan.steps:
            print(f"\n{step.name}:")
            print(
                "\n".join(f"  {key}: {json.dumps(one, ensure_ascii=False)}" for key, one in step.record.config.items())
            )
    return 0
