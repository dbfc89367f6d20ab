"""Files of a checkpoint folder: safetensors, single or sharded, and pickled weights through torch's safe loader."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nacre.errors import CheckpointError, ResourceError
from nacre.lineage.durable import sync_folder, write_atomic

CONFIG, WEIGHTS, HEAD = "config.json", "model.safetensors", "head.safetensors"
_FETCH_AGAIN = "fetch or write the checkpoint again"
_STALE = ("model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json", HEAD)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises CheckpointError where there is none."""
    if not path.is_file():
        raise CheckpointError(
            f"no {path.name} in {path.parent}", remedy="name a folder that holds a complete checkpoint"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}", remedy=_FETCH_AGAIN) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object", remedy=_FETCH_AGAIN)
    return value


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, on the CPU. Raises CheckpointError for missing, truncated or unsafe files."""
    for name, read in ((WEIGHTS, read_safetensors), ("pytorch_model.bin", _read_pickle)):
        if (folder / name).is_file():
            return read(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder, f"{name}.index.json", read)
    remedy = f"put {WEIGHTS} (or pytorch_model.bin) beside {CONFIG}"
    raise CheckpointError(f"no weights in {folder}", remedy=remedy)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}", remedy=_FETCH_AGAIN) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        remedy = f"{_FETCH_AGAIN}, as safetensors if you can: pickled files run code, and only plain tensors are read"
        raise CheckpointError(f"{path} cannot be read as weights: {str(error)[:200]}", remedy=remedy) from error
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{path} holds something else than named tensors", remedy="save a state_dict")
    return values


def _read_shards(folder: Path, index: str, read: Any) -> dict[str, Tensor]:
    places = read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{folder / index} has no weight_map", remedy=_FETCH_AGAIN)
    out: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        if not (folder / shard).is_file() or Path(shard).name != shard:
            raise CheckpointError(f"the shard {shard!r} named in {index} is not in {folder}", remedy=_FETCH_AGAIN)
        out |= read(folder / shard)
    if set(out) != set(places):
        odd = sorted(set(out) ^ set(places))[:4]
        raise CheckpointError(f"{index} and its shards disagree about {', '.join(odd)}", remedy=_FETCH_AGAIN)
    return out


def write_folder(folder: Path, config: dict[str, Any], weights: dict[str, Tensor], head: dict[str, Tensor]) -> None:
    """Writes a checkpoint. `config.json` goes first and comes back last: a folder without it is not complete.

    Weights of an earlier save in other files are removed; other files (a tokenizer's) stay.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        for name in _STALE:
            (folder / name).unlink(missing_ok=True)
        _write_tensors(folder / WEIGHTS, weights)
        if head:
            _write_tensors(folder / HEAD, head)
        text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        write_atomic(folder / CONFIG, text.encode("utf-8"))
    except OSError as error:
        raise ResourceError(
            f"cannot write the checkpoint to {folder}: {error}", remedy="free the disk, or choose another folder"
        ) from error


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    sibling = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        sibling.touch()
        mode = sibling.stat().st_mode
        save_file(tensors, sibling, metadata={"format": "pt"})
        sibling.chmod(mode)  # safetensors makes a file for its owner alone, whatever the umask
        with sibling.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(sibling, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        sibling.unlink(missing_ok=True)
    sync_folder(path.parent)
