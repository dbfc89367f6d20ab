"""What a rung keeps of its task, so that it answers without the task's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.errors import CheckpointError, DataError
from nacre.metrics.quality import Kind
from nacre.tiers.rung import RUNG_FILE, Manifest
from nacre.tiers.task import Row, Task

# What a row must have to be asked.
ASKED_FIELDS: Mapping[Kind, str] = {"classify": "text", "tag": "tokens", "generate": "source", "rank": "query"}


def keep_task(task: Task) -> dict[str, Any]:
    """What of the task goes into a manifest's `how` under `task`; name, kind, language and labels are in it already."""
    return {
        "about": task.about,
        "metric": task.metric,
        "target_language": task.target_language,
        "descriptions": dict(task.descriptions),
    }


def kept_task(folder: Path, manifest: Manifest) -> Task:
    """The task of a rung: what was kept, and the rung's own `corpus.jsonl`, where it has one; no training rows."""
    kept = manifest.how.get("task")
    if not isinstance(kept, Mapping):
        raise CheckpointError(
            f"{folder / RUNG_FILE} does not say what task it solves", remedy="make the rung again with its tier's stage"
        )
    return Task(
        name=manifest.task,
        kind=manifest.kind,
        language=manifest.language,
        labels=manifest.labels,
        folder=folder,
        **kept,
    )


def check_rows(kind: Kind, rows: Sequence[Row]) -> None:
    """Raises DataError for the first row without the field by which rows of this kind are asked."""
    field = ASKED_FIELDS[kind]
    for number, row in enumerate(rows, 1):
        value = row.get(field)
        if isinstance(value, str if kind != "tag" else list | tuple):
            continue
        has = ", ".join(map(repr, row)) or "(nothing)"
        raise DataError(
            f"row {number} has no {'list' if kind == 'tag' else 'text'} {field!r}; it has: {has}",
            remedy=f"give rows of a task of the kind {kind}: they have {field!r}",
        )
