"""From a reference to the backend that serves it: what a folder holds decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nacre.engine.settings import ENGINE_FILE
from nacre.errors import CheckpointError
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.local.model import LocalModel, Queued
from nacre.lineage.store import Resolved, Store
from nacre.recipe.machine import resolve_device

_RUNG, _INDEX = "rung.json", "index.json"


def open_local(name: str, config: LocalConfig, store: Store, queued: Queued | None = None) -> LocalModel:
    """The backend of a checkpoint, an engine's folder, a rung, a classifier or an index; not started yet.

    `queued` hears how many requests wait and run. Raises NacreError for a reference that names nothing that answers.
    """
    found = store.resolve(config.ref)
    store.verify(found)
    folder = found.path
    if (folder / _RUNG).is_file():
        from nacre.lifecycle.serve.local.solved import RungSolver
        from nacre.lifecycle.serve.local.solved_model import SolvedModel

        return SolvedModel(name, lambda: RungSolver(folder, resolve_device(config.device), found.ref), config, queued)
    if (folder / _INDEX).is_file():
        from nacre.lifecycle.serve.local.search import SearchModel

        return SearchModel(name, folder, config, queued, _engine_of(found, store))
    if not (folder / ENGINE_FILE).is_file() and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{config.ref} holds no model, rung or index that can be served",
            remedy=f"give a folder with config.json, {ENGINE_FILE}, {_RUNG} or {_INDEX}",
        )
    if _is_classifier(folder):
        from nacre.lifecycle.serve.local.solved import ClassifierSolver
        from nacre.lifecycle.serve.local.solved_model import SolvedModel

        return SolvedModel(
            name,
            lambda: ClassifierSolver(folder, resolve_device(config.device), found.ref, config.batch),
            config,
            queued,
        )
    from nacre.lifecycle.serve.local.checkpoint import CheckpointModel

    return CheckpointModel(name, folder, config, queued)


def _is_classifier(folder: Path) -> bool:
    """Whether a checkpoint's `config.json` names a classification head over whole texts."""
    if (folder / ENGINE_FILE).is_file():
        return False
    try:
        plain: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{folder / 'config.json'} is not JSON: {error}", remedy="fetch the model again"
        ) from error
    kinds = plain.get("architectures") if isinstance(plain, dict) else None
    return any(str(kind).endswith("ForSequenceClassification") for kind in kinds or ())


def _engine_of(index: Resolved, store: Store) -> Path | None:
    """The folder of the engine that embedded an index, by its record; None where it has no vectors."""
    parents = index.record.parents if index.record else ()
    reference = next((parent.ref for parent in parents if parent.input == "engine"), None)
    return store.resolve(reference).path if reference else None
