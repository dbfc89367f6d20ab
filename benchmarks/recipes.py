"""What recipes reach: runs each named recipe (or a variant of it) and records the metrics of its last step.

    python benchmarks/recipes.py banking77 minilm
    python benchmarks/recipes.py banking77 --set tune.objective.subword_dropout=0 --variant "one segmentation"

Steps that an earlier run made this way are taken from the store; their recorded seconds count all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import record
from nacre.recipe.recipe import load
from nacre.recipe.references import open_store
from nacre.recipe.run import run

RECIPES = Path(__file__).parents[1] / "recipes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+", choices=sorted(path.stem for path in RECIPES.glob("*.yaml")))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="STEP.KEY=VALUE")
    parser.add_argument("--variant", default="as shipped", help="what the overrides amount to, in words")
    parser.add_argument("--store", help="default: $NACRE_HOME, else .nacre")
    args = parser.parse_args()
    if args.overrides and args.variant == "as shipped":
        parser.error("name the variant: --variant WORDS")
    where = record.machine(["torch", "nacre"]) | {"threads": os.environ.get("OMP_NUM_THREADS", "all")}
    rows = []
    for name in args.recipes:
        began = time.monotonic()
        results = run(load(RECIPES / f"{name}.yaml", args.overrides), open_store(args.store, fetch=True))
        wall_s = time.monotonic() - began
        for one in results:
            if one.record.kind not in ("report", "predictions"):
                continue
            rows.append(
                where
                | {
                    "recipe": name,
                    "variant": args.variant,
                    "step": one.step,
                    "seconds_of_all_steps": round(sum(step.record.cost.seconds or 0 for step in results)),
                    "wall_s": round(wall_s),
                    "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                    "metrics": json.dumps(dict(one.record.metrics), ensure_ascii=False),
                }
            )
            print(name, args.variant, one.step, dict(one.record.metrics))
    record.append("recipes", rows)


if __name__ == "__main__":
    main()
