"""What recipes/robust.yaml and recipes/continual.yaml measure, at several seeds: each seed's own intervals over test
rows, then the mean over seeds with Student's interval over these (their number is n)."""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nacre.lineage.store import Store
from nacre.recipe.recipe import load
from nacre.recipe.references import open_store
from nacre.recipe.run import run
from nacre.tiers.tune.folding_worker import over_folds

RECIPES = Path(__file__).parents[2] / "recipes"
Row = dict[str, Any]
Found = Mapping[str, float]


def row(part: str, setting: str, seed: Any, metric: str, n: int, found: Found, seconds: float = 0.0) -> Row:
    values = {name: round(found[name], 4) for name in ("value", "low", "high")}
    return (
        {"part": part, "setting": setting, "seed": seed, "metric": metric, "n": n}
        | values
        | {"seconds": round(seconds, 1)}
    )


def ran(name: str, seed: int) -> tuple[Store, float]:
    """A recipe of the repository, and the seconds of its steps. ALIGN_STORE: where the stores of seeds are kept, so
    that a run that was cut short goes on; else they are made anew."""
    kept = os.environ.get("ALIGN_STORE", "")
    store = open_store(Path(kept) / f"{name}-{seed}" if kept else Path(tempfile.mkdtemp()))
    results = run(replace(load(RECIPES / f"{name}.yaml"), seed=seed), store)
    return store, sum(one.record.cost.seconds for one in results)


def over_seeds(part: str, values: Mapping[tuple[str, str], Sequence[float]]) -> Iterator[Row]:
    for (setting, metric), each in values.items():
        if len(each) > 1:
            found = over_folds(each, 0.95)
            told = {"value": found.mean, "low": found.low, "high": found.high}
            yield row(part, setting, "mean", metric, len(each), told)


def robust(seeds: int) -> Iterator[Row]:
    """Accuracy on clean and on noisy text, and what each way adds to plain tuning on the same rows."""
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for seed in range(seeds):
        store, seconds = ran("robust", seed)
        for text in ("clean", "noisy"):
            figures = json.loads((store.resolve(f"robust/on_{text}").path / "metrics.json").read_text())
            for name, found in figures["members"].items():
                setting = f"{name.rpartition('/')[2].partition('@')[0]}, {text} text"
                for metric in ("accuracy", "minus_first"):
                    if metric == "minus_first" and setting.startswith("plain"):
                        continue
                    shown = {"accuracy": "accuracy", "minus_first": "accuracy_over_plain"}[metric]
                    values[setting, shown].append(found[metric]["value"])
                    yield row("robust", setting, seed, shown, figures["examples"], found[metric], seconds)
    yield from over_seeds("robust", values)


def continual(seeds: int) -> Iterator[Row]:
    """Average accuracy, backward transfer and forgetting after three tasks, the task told and not."""
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    ways = {"none": "none", "replay": "replay 0.1", "alone": "none, head per task", "ewc": "EWC, head per task"}
    for seed in range(seeds):
        store, seconds = ran("continual", seed)
        for way, setting in ways.items():
            figures = json.loads((store.resolve(f"continual/forgetting_{way}").path / "metrics.json").read_text())
            n = sum(1 for _ in (store.resolve(f"continual/forgetting_{way}").path / "predictions.jsonl").open())
            for name in ("average_accuracy", "backward_transfer", "forgetting"):
                for metric in (name, f"{name}_told"):
                    values[setting, metric].append(figures[metric]["value"])
                    yield row("continual", setting, seed, metric, n, figures[metric], seconds)
    yield from over_seeds("continual", values)
