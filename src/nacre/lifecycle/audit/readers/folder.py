"""What lies in a model's folder: which files are its config, its weights and its tokenizer, best first."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.readers import safetensors
from nacre.lifecycle.audit.readers.files import damaged, inside, read_whole, shown, size_of
from nacre.lifecycle.audit.readers.index import Found, Reader, read_files, read_shards
from nacre.lifecycle.audit.readers.strict_json import parse_object

LARGEST_CONFIG = 64 << 20
# Whole tokenizers, best first; beside the first file of a row lie its others.
TOKENIZERS = (
    ("tokenizer.json",), ("tokenizer.model",), ("spiece.model",), ("sentencepiece.bpe.model",),
    ("vocab.json", "merges.txt"), ("vocab.txt",), ("vocab.json",),
)  # fmt: skip
_READERS: dict[str, Reader] = {".safetensors": safetensors.read_header}


def reader_of(path: Path) -> Reader:
    """What reads the tensors of a file, by the end of its name. Raises CheckpointError."""
    if path.suffix not in _READERS:
        raise damaged(path, "is in no known format of weights", "give .safetensors, .bin or .gguf")
    return _READERS[path.suffix]


def read_config(path: Path, notes: list[str]) -> dict[str, Any]:
    """The config in a JSON file; a key given twice is noted and its last value counts. Raises CheckpointError."""
    twice: list[str] = []
    config = parse_object(read_whole(path, LARGEST_CONFIG), path, duplicates=twice)
    if twice:
        notes.append(
            f"{shown(path.name)}: {len(twice)} keys are given twice, {shown(twice[0])!r} first; the last counts"
        )
    return config


def listing(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones. Raises CheckpointError."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise damaged(folder, f"cannot be listed: {error.strerror}", "check its permissions") from error


def find_weights(folder: Path, names: list[str]) -> Found | None:
    """The weights of a folder from the first of its candidates that is whole; None where it holds none at all.

    Where none is whole, the one that knows most names, with its problem. Whatever was passed over is in the notes.
    """
    tried: list[tuple[str, Found]] = []
    for label, attempt in _candidates(folder, names):
        try:
            found = attempt()
        except CheckpointError as error:
            found = Found(problem=error.message)
        found.notes += [f"{other} was passed over: {one.problem}" for other, one in tried]
        if found.problem is None:
            return found
        tried.append((label, found))
    return max((found for _, found in tried), key=lambda one: (len(one.extents), len(one.names)), default=None)


def _candidates(folder: Path, names: list[str]) -> list[tuple[str, Callable[[], Found]]]:
    out: list[tuple[str, Callable[[], Found]]] = []
    indexed: set[str] = set()
    for suffix in _READERS:
        mine = [name for name in names if name.endswith(suffix)]
        whole = [name for name in mine if name.startswith(("model.", "pytorch_model.", "adapter_model."))]
        indices = [name for name in names if name.endswith(f"{suffix}.index.json")]
        out += [(shown(name), partial(_one, folder, [name])) for name in whole]
        out += [(shown(name), partial(_index, folder, name)) for name in indices]
        others = [name for name in mine if name not in whole]
        if indices or whole:
            indexed.update(others)
        elif others:
            out.append((f"{len(others)} files {suffix}", partial(_one, folder, others)))
    return out


def _one(folder: Path, names: list[str]) -> Found:
    return read_files([inside(folder, name) for name in names], reader_of(Path(names[0])))


def _index(folder: Path, name: str) -> Found:
    return read_shards(inside(folder, name), reader_of(Path(name.removesuffix(".index.json"))))


def find_tokenizer(folder: Path, names: list[str]) -> tuple[Path | None, str | None]:
    """The main file of the folder's tokenizer; None with the reason where there is none."""
    reason = "there is no tokenizer file"
    for row in TOKENIZERS:
        if all(name in names for name in row):
            try:
                if all(size_of(inside(folder, name)) for name in row):
                    return folder / row[0], None
                reason = f"{row[0]} holds no bytes"
            except CheckpointError as error:
                reason = error.message
    return None, reason
