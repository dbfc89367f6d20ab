"""The models in a folder, grouped by design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nacre.errors import CheckpointError, NacreError, UsageError
from nacre.lifecycle.audit.kernel import canonicalise, group
from nacre.lifecycle.audit.kernel.group import Group
from nacre.lifecycle.audit.library import members
from nacre.lifecycle.audit.opening import open_subject
from nacre.lineage.store import Store


@dataclass(frozen=True)
class Grouped:
    """The groups, the largest first; `left_out` are members without a kernel that could be told, and why."""

    groups: list[Group]
    left_out: Mapping[str, str]


def group_folder(folder: Path, store: Store) -> Grouped:
    """The model folders in `folder` by design, by their names. Raises UsageError where it holds none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", remedy="give a folder of model folders")
    found = members(folder)
    if not found:
        raise UsageError(f"{folder} holds no model folders", remedy="give a folder whose folders are models")
    canonicals, left_out = {}, {}
    for path in found:
        try:
            subject = open_subject(path, store)
            if "kernel" in subject.missing:
                raise CheckpointError(subject.missing["kernel"], remedy="add its config")
            canonicals[path.name] = canonicalise(subject)
        except NacreError as error:
            left_out[path.name] = error.message
    return Grouped(group(canonicals), left_out)
