"""From a reference to the backend that serves it: what a folder holds decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nacre.engine.base import BaseEngine
from nacre.engine.settings import ENGINE_FILE
from nacre.errors import CheckpointError
from nacre.lifecycle.serve.config import LocalAdapter, LocalConfig
from nacre.lifecycle.serve.local.adapting import Adapters
from nacre.lifecycle.serve.local.model import LocalModel, Queued
from nacre.lineage.store import Resolved, Store
from nacre.recipe.machine import resolve_device

_RUNG, _INDEX = "rung.json", "index.json"


class Openings:
    """Opens local models in this process; a base is asked for before its adapters."""

    def __init__(self, store: Store, queued: Queued | None = None) -> None:
        self._store, self._queued = store, queued
        self._adapters: dict[str, Adapters] = {}

    def __call__(self, name: str, config: LocalConfig) -> LocalModel:
        if config.adapters:
            self._adapters[name] = Adapters(name, config, self._store)
        base = config.base if isinstance(config, LocalAdapter) else name
        return open_local(name, config, self._store, self._queued, self._adapters.get(base))


def open_local(
    name: str, config: LocalConfig, store: Store, queued: Queued | None = None, adapters: Adapters | None = None
) -> LocalModel:
    """The backend of a checkpoint, an engine's folder, a rung, a classifier or an index; not started yet.

    `queued` hears how many requests wait and run; `adapters` is what a base shares with its adapters. Raises
    NacreError for a reference that names nothing that answers.
    """
    found = store.resolve(config.ref)
    store.verify(found)
    folder = found.path
    if adapters is not None:
        return _shared(name, replace(config, ref=found.ref), folder, queued, adapters)
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


def _shared(name: str, config: LocalConfig, folder: Path, queued: Queued | None, adapters: Adapters) -> LocalModel:
    """The base, which reads all adapters as it opens, or one of its adapters."""
    adapter = config.adapter if isinstance(config, LocalAdapter) else ""
    worker, device = adapters.worker(adapter), resolve_device(config.device)
    if (
        any((folder / file).is_file() for file in (_RUNG, _INDEX, ENGINE_FILE))
        or not (folder / "config.json").is_file()
    ):
        raise CheckpointError(
            f"{config.ref} is no checkpoint, and adapters stand over one", remedy="leave adapters out of this model"
        )
    if _is_classifier(folder):
        from nacre.lifecycle.serve.local.solved import ClassifierSolver
        from nacre.lifecycle.serve.local.solved_model import SolvedModel

        def solver() -> ClassifierSolver:
            if adapter:
                return adapters.view(adapter, ClassifierSolver)
            return adapters.over(ClassifierSolver(folder, device, config.ref, config.batch))

        return SolvedModel(name, solver, config, queued, worker)
    from nacre.engine.native import Native
    from nacre.engine.opening import open_bare
    from nacre.engine.room import EngineRoom
    from nacre.lifecycle.serve.local.checkpoint import CheckpointModel

    def engine() -> BaseEngine:
        if adapter:
            return adapters.view(adapter, Native)
        return adapters.over(open_bare(folder, EngineRoom(device=device)))

    return CheckpointModel(name, folder, config, queued, worker, engine)


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
