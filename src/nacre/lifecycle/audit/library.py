"""Folders of models: what `--against DIR` and `--group` mean by the models in DIR."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nacre.errors import CheckpointError

_WHOLE = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer.model", "vocab.txt", "lineage.json")
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf")


def members(folder: Path) -> list[Path]:
    """The model folders that lie in `folder`, by name; none where it is a model (or anything but a folder) itself.

    Raises CheckpointError where the folder cannot be listed.
    """
    if not folder.is_dir() or _is_model(folder):
        return []
    return [one for one in _listed(folder) if one.is_dir() and _is_model(one)]


def expanded(references: Iterable[str | Path]) -> list[str | Path]:
    """The references, folders of models replaced by what lies in them. What is no path stays as it is."""
    found: list[str | Path] = []
    for one in references:
        try:
            inside = members(Path(one).expanduser())
        except (ValueError, OSError):  # a name that is no path is a reference of another kind
            inside = []
        found += inside or [one]
    return found


def _is_model(folder: Path) -> bool:
    names = [one.name for one in _listed(folder)]
    return any(name in _WHOLE or name.endswith(_WEIGHTS) for name in names)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(Path(folder, name) for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be listed: {error.strerror}", remedy="check its permissions") from error
