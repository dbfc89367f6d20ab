"""A rung: a task solved at one tier, as a folder that answers. What every tier makes and the ladder compares.

The folder (an artifact of the kind `rung`) holds `rung.json` (the manifest) and whatever its solver needs: a model, an
index, a prompt. Opened, it answers rows, and reads nothing outside the folder: a rung that calls an engine has it in
`engine/`, a local checkpoint as hard links (`keep_engine`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nacre.data.write import write_json
from nacre.engine.protocol import Usage
from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError, closest
from nacre.lazy import named
from nacre.lineage.digest import LOGS_NAME, RECORD_NAME
from nacre.metrics.quality import Kind
from nacre.tiers.task import Row, Task

RUNG_FILE, ENGINE_FOLDER = "rung.json", "engine"
TIERS = ("baseline", "relay", "prompt", "retrieval", "tune", "pretrain")


@dataclass(frozen=True)
class Citation:
    """Where an answer comes from: a document (file or row id), and characters `start` to `end` of it."""

    source: str
    start: int
    end: int
    text: str
    score: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a rung says to one row. `value` is as in `metrics/quality.py`; None is no answer, and `problem` says why.

    `scores`: the likeliest classes and their probability, where the solver has them. `raw`: what a model wrote, word
    for word, where it was parsed. `served_by`: the model that answered, where an engine was called.
    """

    value: Any
    problem: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    citations: tuple[Citation, ...] = ()
    raw: str | None = None
    served_by: str | None = None


@dataclass(frozen=True)
class Manifest:
    """`rung.json`. `solver` says in a few words how (`TF-IDF + linear SVM`); `how` is whatever the opener needs.

    `owns` says, for kernel, weights, data, prompt and index: `own`, `borrowed`, `called` or `none`.
    """

    tier: str
    solver: str
    task: str
    kind: Kind
    language: str
    labels: tuple[str, ...] = ()
    trained_parameters: int = 0
    owns: Mapping[str, str] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        task: Task,
        tier: str,
        solver: str,
        *,
        owns: Mapping[str, str],
        how: Mapping[str, Any],
        trained_parameters: int = 0,
    ) -> Manifest:
        """The manifest of a solution of `task`."""
        return cls(tier, solver, task.name, task.kind, task.language, task.labels, trained_parameters, owns, how)


class Rung(Protocol):
    """A solved task. `close` ends what opening started."""

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order. Raises BudgetReached, or EngineError where an engine fails for good."""
        ...

    def close(self) -> None: ...


Opener = Callable[[Path, Manifest, EngineRoom], Rung]

# tier -> "module:function" of its opener, imported when a rung of it is opened.
OPENERS: Mapping[str, str] = {tier: f"nacre.tiers.{tier}.rung:open_rung" for tier in TIERS}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `rung.json`."""
    write_json(folder / RUNG_FILE, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest; raises CheckpointError where the folder is no rung."""
    try:
        plain = json.loads((folder / RUNG_FILE).read_text(encoding="utf-8"))
        manifest = Manifest(**{**plain, "labels": tuple(plain["labels"])})
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {RUNG_FILE}", remedy="give a rung made by `nacre ladder`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / RUNG_FILE} is damaged: {error}", remedy="run the ladder again") from error
    if manifest.tier not in OPENERS:
        raise CheckpointError(f"{folder}: no tier {manifest.tier!r}", remedy=closest(manifest.tier, OPENERS))
    return manifest


def open_rung(folder: Path, engines: EngineRoom | None = None) -> Rung:
    """A rung ready to answer."""
    manifest = read_manifest(folder)
    opener: Opener = named(OPENERS[manifest.tier])
    return opener(folder, manifest, engines or EngineRoom())


def keep_engine(source: Path, rung: Path) -> None:
    """Puts an engine's folder into the rung as `engine/`: files as hard links where possible, else copied.

    The rung then needs nothing else, and a checkpoint that several rungs call is on the disk once.
    """
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        inside = file.relative_to(source)
        if inside.parts[0] == LOGS_NAME or inside.name == RECORD_NAME:
            continue
        target = rung / ENGINE_FOLDER / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)
