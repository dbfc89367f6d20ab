"""Teaching and aligning on small models: does each method do what it is for, with intervals over held-out rows.

    python benchmarks/align.py preference [--seeds 3] [--record]

A subcommand prints its rows, and with `--record` appends them to results/align.csv: one value per row, with its
interval by resampling the held-out examples.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.metrics.bootstrap import Bootstrap, mean_interval
from record import append, machine

DATA = Path(os.environ.get("NACRE_DATA", Path(__file__).parents[2] / "shared" / "data"))
Row = dict[str, Any]


def measured(part: str, setting: str, seed: int, values: dict[str, np.ndarray], seconds: float) -> Iterator[Row]:
    """One row per named metric, of per-example values (N,)."""
    for name, each in values.items():
        found = mean_interval(each, Bootstrap(seed=seed))
        yield {
            "part": part, "setting": setting, "seed": seed, "metric": name, "n": len(each),
            "value": round(found.value, 4), "low": round(found.low, 4), "high": round(found.high, 4),
            "seconds": round(seconds, 1),
        }  # fmt: skip


def preference(seeds: int) -> Iterator[Row]:
    """A decoder of a million parameters taught the chosen answers of pref-en-hh-harmless, then DPO from there."""
    from align_parts.preference import dpo

    yield from dpo(DATA / "pref-en-hh-harmless", seeds, measured)


def preference_per_token(seeds: int) -> Iterator[Row]:
    """The same with log-probabilities per token, where the length of an answer is no reward."""
    from align_parts.preference import dpo

    yield from dpo(DATA / "pref-en-hh-harmless", seeds, measured, per_token=True)


def reward(seeds: int) -> Iterator[Row]:
    """A reward model from the same start."""
    from align_parts.preference import judges

    yield from judges(DATA / "pref-en-hh-harmless", seeds, measured)


def distil(seeds: int) -> Iterator[Row]:
    """MiniLM tuned on BANKING77 (NACRE_TEACHER) into a student of a fifth of its parameters; NACRE_ROWS: the rows as
    recipes/distil.yaml prepares them. DISTIL_FROM: the first seed."""
    from align_parts.distil import students

    first = int(os.environ.get("DISTIL_FROM", "0"))
    yield from students(Path(os.environ["NACRE_ROWS"]), range(first, first + seeds), measured)


def adapters(seeds: int) -> Iterator[Row]:
    """MiniLM on BANKING77 by LoRA and in full; NACRE_ROWS: the rows as recipes/minilm.yaml prepares them.
    ADAPTERS_FROM: the first seed."""
    from align_parts.adapters import compared

    first = int(os.environ.get("ADAPTERS_FROM", "0"))
    yield from compared(Path(os.environ["NACRE_ROWS"]), range(first, first + seeds), measured)


def robust(seeds: int) -> Iterator[Row]:
    """recipes/robust.yaml: Chinese hotel reviews tuned plainly, with FGM, with PGD, and on noisy copies."""
    from align_parts.recipes import robust

    yield from robust(seeds)


def continual(seeds: int) -> Iterator[Row]:
    """recipes/continual.yaml: three tasks in a row without a remedy, with replay, and with EWC."""
    from align_parts.recipes import continual

    yield from continual(seeds)


def reinforce(seeds: int) -> Iterator[Row]:
    """GRPO and PPO on sums that a bad teacher taught: exact match on sums held out, drawn and greedily."""
    from align_parts.reinforce import lifted

    yield from lifted(seeds, measured)


COMMANDS: dict[str, Callable[[int], Iterator[Row]]] = {
    "adapters": adapters,
    "continual": continual,
    "distil": distil,
    "preference": preference,
    "preference_per_token": preference_per_token,
    "reinforce": reinforce,
    "reward": reward,
    "robust": robust,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=COMMANDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    about, began, rows = machine(("torch",)), time.monotonic(), []
    for row in COMMANDS[given.part](given.seeds):
        rows.append(row | about)
        print(*(f"{name} {value}" for name, value in row.items()), flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    if given.record:
        print(append("align", rows))


if __name__ == "__main__":
    tempfile.tempdir = tempfile.mkdtemp(prefix="nacre-align-")
    main()
