"""Phases of a long stage: each has a folder in scratch, and one that is finished is not repeated after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nacre.lineage.durable import sync_tree, write_atomic
from nacre.progress import Scalar
from nacre.recipe.stage import Work

DONE = "done.json"


@dataclass(frozen=True)
class Phase:
    """A finished phase: what it wrote, what it measured, what it cost."""

    folder: Path
    metrics: Mapping[str, Scalar]
    tokens: int
    flops: float


class Phases:
    """The phases of one stage; `tokens` and `flops` add up what all of them cost."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tokens = 0
        self.flops = 0.0

    def run(self, name: str, make: Callable[[Work], Mapping[str, Scalar]]) -> Phase:
        """The result of `make`, which writes into `work.out` and keeps its checkpoints in `work.scratch`.

        Called again after a kill, a finished phase is read back; one that was cut short begins with its scratch.
        """
        folder = self.work.scratch / name
        done = folder / DONE
        if done.is_file():
            self.work.progress.note("phase kept", phase=name)
        else:
            self._make(folder, make)
        plain = json.loads(done.read_text(encoding="utf-8"))
        phase = Phase(folder / "out", plain["metrics"], plain["tokens"], plain["flops"])
        self.tokens += phase.tokens
        self.flops += phase.flops
        return phase

    def _make(self, folder: Path, make: Callable[[Work], Mapping[str, Scalar]]) -> None:
        out, scratch = folder / "out", folder / "work"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        inner = replace(self.work, out=out, scratch=scratch, tokens=None, flops=None, notes=[])
        metrics = dict(make(inner))
        sync_tree(out)
        plain = {"metrics": metrics, "tokens": inner.tokens or 0, "flops": inner.flops or 0.0}
        write_atomic(folder / DONE, json.dumps(plain, ensure_ascii=False, sort_keys=True).encode())
        shutil.rmtree(scratch)  # checkpoints of a finished phase are of no more use
