"""What a rung keeps of its task, so that it answers without the task's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nacre.errors import CheckpointError
from nacre.tiers.rung import RUNG_FILE, Manifest
from nacre.tiers.task import Task


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
