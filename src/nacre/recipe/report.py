"""A report as an artifact of the store, made by a command rather than by a step of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nacre.lineage.record import Record, fingerprint
from nacre.lineage.store import Resolved, Store
from nacre.lineage.workspace import begin, lock, publish
from nacre.recipe import machine


def keep_report(store: Store, record: Record, write: Callable[[Path], None]) -> Resolved:
    """Publishes what `write(folder)` writes, whole or not at all, as the next version of `record.name`.

    `record` gives name, stage, revision, config, seed, parents and what else is known; fingerprint and versions are
    filled in here. A report made this way before is given as it is, and nothing is written.
    """
    assert record.stage is not None  # callers name theirs
    value = fingerprint(record.stage, record.revision, record.config, record.seed, record.parents)
    with lock(store, record.name, lambda holder: None):
        found = store.find(record.name, value)
        if found is not None:
            return found
        space = begin(store, record.name, value)
        write(space.out)
        made = publish(store, space, replace(record, fingerprint=value, versions=machine.describe_versions()))
    return store.get(made.name, made.version)
