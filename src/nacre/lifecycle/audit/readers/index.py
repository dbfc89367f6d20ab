"""Weights in shards: an index of names and files, checked against the shards that lie beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.readers.files import damaged, inside, read_whole, shown, size_of
from nacre.lifecycle.audit.readers.ranges import Extent
from nacre.lifecycle.audit.readers.strict_json import parse_object
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tensors import TensorInfo

LARGEST_INDEX = 100_000_000
_MOST_SHARDS = 10_000
Reader = Callable[[Path, list[str]], dict[str, Extent]]  # (file, notes) -> its tensors


@dataclass
class Found:
    """Tensors that were found: all of `names` are known, those in `extents` can be read; `problem` is why not all."""

    names: dict[str, TensorInfo] = field(default_factory=dict)
    extents: dict[str, Extent] = field(default_factory=dict)
    problem: str | None = None
    notes: list[str] = field(default_factory=list)


def read_index(path: Path) -> dict[str, str]:
    """The file of every tensor that an index names. Raises CheckpointError."""
    places = parse_object(read_whole(path, LARGEST_INDEX), path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise damaged(path, "has no weight_map")
    if not all(isinstance(file, str) for file in places.values()):
        raise damaged(path, "its weight_map names something else than files")
    if len(set(places.values())) > _MOST_SHARDS:
        raise damaged(path, say("names more than {n:,} files", n=_MOST_SHARDS))
    return places


def names_only(places: Mapping[str, str]) -> dict[str, TensorInfo]:
    """Tensors of which an index tells the name and the file, and nothing else."""
    return {name: TensorInfo(name, "", (), 0, file) for name, file in places.items()}


def read_shards(index: Path, reader: Reader) -> Found:
    """The tensors of an index and its shards. Raises CheckpointError where the index itself cannot be read.

    What is wrong with a shard is the `problem`; the tensors of the others are still found.
    """
    places = read_index(index)
    found = Found(names=names_only(places))
    for shard in sorted(set(places.values())):
        try:
            extents = _read_shard(index, shard, reader, found.notes)
            _add(found, extents, shard, places)
        except CheckpointError as error:
            found.problem = found.problem or error.message
    lacking = [name for name in places if name not in found.extents]
    if lacking and found.problem is None:
        shard = places[lacking[0]]
        found.problem = say(
            "{shard} lacks {n} tensors that the index names, {name} first",
            shard=shown(shard),
            n=len(lacking),
            name=repr(shown(lacking[0])),
        )
    return found


def _read_shard(index: Path, shard: str, reader: Reader, notes: list[str]) -> dict[str, Extent]:
    path = inside(index.parent, shard)
    if not path.exists():
        what = say("the shard {shard} that {index} names is missing", shard=shown(shard), index=shown(index.name))
        raise CheckpointError(what, remedy="fetch it")
    if size_of(path) == 0:
        raise CheckpointError(say("the shard {shard} holds no bytes", shard=shown(shard)), remedy="fetch it again")
    return reader(path, notes)


def _add(found: Found, extents: Mapping[str, Extent], shard: str, places: Mapping[str, str]) -> None:
    twice = [name for name in extents if name in found.extents]
    if twice:
        name, other = repr(shown(twice[0])), shown(found.extents[twice[0]].info.file)
        what = say("the tensor {name} lies in {other} and in {shard}", name=name, other=other, shard=shown(shard))
        raise CheckpointError(what, remedy="fetch both shards again")
    strays = [name for name in extents if name not in places]
    if strays:
        note = say("{shard} holds {n} tensors that the index does not name", shard=shown(shard), n=len(strays))
        found.notes.append(note)
    elsewhere = [name for name in extents if name in places and places[name] != shard]
    if elsewhere:
        what = say(
            "{name} lies in {shard}, the index says {other}",
            name=repr(shown(elsewhere[0])),
            shard=shown(shard),
            other=shown(places[elsewhere[0]]),
        )
        raise CheckpointError(what, remedy="fetch the index and its shards again")
    found.extents.update(extents)
    found.names.update({name: extent.info for name, extent in extents.items()})


def read_files(paths: list[Path], reader: Reader) -> Found:
    """The tensors of one file, or of several that no index joins; the first problem does not hide the other files."""
    found = Found()
    for path in paths:
        try:
            extents = reader(path, found.notes)
            _add(found, extents, path.name, dict.fromkeys(extents, path.name))
        except CheckpointError as error:
            found.problem = found.problem or error.message
    return found
