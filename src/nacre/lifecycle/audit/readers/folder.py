"""What lies in a model's folder: which files are its config, its weights and its tokenizer, best first."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.readers import gguf, safetensors, torch_zip
from nacre.lifecycle.audit.readers.files import damaged, inside, read_whole, shown, size_of
from nacre.lifecycle.audit.readers.index import Found, Reader, read_files, read_shards
from nacre.lifecycle.audit.readers.strict_json import parse_object
from nacre.lifecycle.audit.said import say

LARGEST_CONFIG = 64 << 20
# Whole tokenizers, best first; beside the first file of a row lie its others.
TOKENIZERS = (
    ("tokenizer.json",), ("tokenizer.model",), ("spiece.model",), ("sentencepiece.bpe.model",),
    ("vocab.json", "merges.txt"), ("vocab.txt",), ("vocab.json",),
)  # fmt: skip
_NO_WEIGHTS = ("training_args.", "optimizer.", "scheduler.", "scaler.", "rng_state")  # a trainer's own state
_READERS: dict[str, Reader] = {
    ".safetensors": safetensors.read_header,
    **dict.fromkeys(torch_zip.SUFFIXES, torch_zip.read_header),
    ".gguf": gguf.read_extents,
}


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
        name = repr(shown(twice[0]))
        what = say("{n} keys are given twice, {name} first; the last counts", n=len(twice), name=name)
        notes.append(say("{where}: {reason}", where=shown(path.name), reason=what))
    return config


def listing(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones. Raises CheckpointError."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise damaged(folder, say("cannot be listed: {why}", why=error.strerror), "check its permissions") from error


def find_weights(folder: Path, names: list[str]) -> Found | None:
    """The weights of a folder from the first of its candidates that is whole; None where it holds none at all.

    Where none is whole, the one that knows most names, with its problem. Whatever was passed over is in the notes.
    """
    names = [name for name in names if not name.startswith(_NO_WEIGHTS)]
    tried: list[tuple[str, Found]] = []
    for label, attempt in _candidates(folder, names):
        try:
            found = attempt()
        except CheckpointError as error:
            found = Found(problem=error.message)
        tried.append((label, found))
        if found.problem is None:
            break
    if not tried:
        return None
    best = max((found for _, found in tried), key=lambda one: (one.problem is None, len(one.extents), len(one.names)))
    best.notes += [
        say("{label} was passed over: {reason}", label=label, reason=found.problem)
        for label, found in tried
        if found is not best
    ]
    return _with_unused(best, names) if best.problem is None else best


def _candidates(folder: Path, names: list[str]) -> list[tuple[str, Callable[[], Found]]]:
    """By format: files of the customary names, then indices, then all the files that no index joins."""
    out: list[tuple[str, Callable[[], Found]]] = []
    for suffix in _READERS:
        mine = [name for name in names if name.endswith(suffix)]
        whole = [name for name in mine if name.startswith(("model.", "pytorch_model.", "adapter_model."))]
        indices = [name for name in names if name.endswith(f"{suffix}.index.json")]
        out += [(shown(name), partial(_one, folder, [name])) for name in whole]
        out += [(shown(name), partial(_index, folder, name)) for name in indices]
        if mine and not whole and not indices:
            out.append((say("{n} files {suffix}", n=len(mine), suffix=suffix), partial(_one, folder, mine)))
    return out


def _with_unused(found: Found, names: list[str]) -> Found:
    used = {extent.info.file for extent in found.extents.values()}
    unused = [name for name in names if name.endswith(tuple(_READERS)) and name not in used]
    if unused:
        name = repr(shown(unused[0]))
        note = say("{n} further files of weights were not read, {name} first", n=len(unused), name=name)
        found.notes.append(note)
    return found


def _one(folder: Path, names: list[str]) -> Found:
    return read_files([inside(folder, name) for name in names], reader_of(Path(names[0])))


def _index(folder: Path, name: str) -> Found:
    return read_shards(inside(folder, name), reader_of(Path(name.removesuffix(".index.json"))))


def find_tokenizer(folder: Path, names: list[str]) -> tuple[Path | None, str | None]:
    """The main file of the folder's tokenizer; None with the reason where there is none."""
    reason: str = "there is no tokenizer file"
    for row in TOKENIZERS:
        if all(name in names for name in row):
            try:
                if all(size_of(inside(folder, name)) for name in row):
                    return folder / row[0], None
                reason = say("{file} holds no bytes", file=row[0])
            except CheckpointError as error:
                reason = error.message
    return None, reason
