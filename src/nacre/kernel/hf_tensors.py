"""Tensors of a checkpoint under the names of `transformers`, to canonical names and back.

Both directions walk the same list of entries, made from the canonical names that the kernel itself has: what a kernel
lacks is never asked for, and what a checkpoint has beyond it is seen.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

import torch
from torch import Tensor

from nacre.errors import CheckpointError
from nacre.kernel.config import KernelConfig
from nacre.kernel.families import FAMILIES, Family

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One tensor on disk: its name in the body or head (without the class's prefix), and what it holds."""

    theirs: str
    canonical: tuple[str, ...]
    transposed: bool
    in_body: bool


def entries(config: KernelConfig, canonical: Iterable[str]) -> list[Entry]:
    """What the checkpoint of a kernel with these canonical names consists of."""
    family, found = FAMILIES[config.family], dict[str, Entry]()
    fused = {name: theirs for theirs, parts in family.fused.items() for name in parts}
    for name in canonical:
        match = _LAYER.search(name)
        template = _LAYER.sub(".layers.{i}.", name)
        head = family.head_names.get(config.head, {}).get(template)
        theirs = head or family.names.get(template) or fused.get(template)
        if theirs is None:
            what = f"the checkpoint format of {config.family!r} has no tensor for {name!r}"
            raise CheckpointError(what, remedy="change the choice that adds it, or choose a family that has it")
        parts = family.fused.get(theirs, (template,))
        theirs = _variant(family, config, theirs)
        number = match.group(1) if match else ""
        theirs, parts = theirs.replace("{i}", number), tuple(part.replace("{i}", number) for part in parts)
        found[theirs] = Entry(theirs, parts, theirs.endswith(family.transposed or ("\0",)), head is None)
    return list(found.values())


def _variant(family: Family, config: KernelConfig, theirs: str) -> str:
    renames = () if config.gated else family.ungated
    renames += () if config.tied else family.untied
    for old, new in renames:
        theirs = theirs.replace(old, new)
    return theirs


def to_theirs(config: KernelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Canonical tensors under the names, and in the layout, of the class that `write_config` declares."""
    family, out = FAMILIES[config.family], dict[str, Tensor]()
    prefix = "" if config.head == "none" else family.prefix
    for entry in entries(config, state):
        parts = [state[name] for name in entry.canonical]
        tensor = _as_stored(entry, torch.cat(parts) if len(parts) > 1 else parts[0])
        out[(prefix if entry.in_body else "") + entry.theirs] = tensor.contiguous()
    if not config.tied:
        # transformers keeps an unused second bias beside that of an untied output matrix.
        out |= {old: out[new].clone() for old, new in family.untied if new in out}
    return out


def _as_stored(entry: Entry, tensor: Tensor) -> Tensor:
    if entry.transposed:
        return tensor.T
    if entry.theirs == "embeddings.cls_token":
        return tensor[None, None]
    return tensor[None] if entry.theirs == "embeddings.position_embeddings" else tensor


def _as_ours(entry: Entry, tensor: Tensor) -> Tensor:
    if entry.transposed:
        return tensor.T
    if entry.theirs == "embeddings.cls_token":
        return tensor.reshape(-1)
    return tensor.reshape(tensor.shape[-2:]) if entry.theirs == "embeddings.position_embeddings" else tensor


def to_canonical(config: KernelConfig, stored: dict[str, Tensor], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under canonical names, with the `shapes` that the kernel has.

    Raises CheckpointError listing missing, unexpected and misshaped tensors, tied tensors that differ, and tensors
    that are no plain floating-point numbers.
    """
    family = FAMILIES[config.family]
    named = _normalised(family, stored)
    wanted = entries(config, shapes)
    expected = {entry.theirs for entry in wanted}
    _drop_duplicates(config, named, expected)
    _drop_unused(family, named, expected)
    missing, unexpected = sorted(expected - set(named)), sorted(set(named) - expected)
    if missing or unexpected:
        raise _mismatch(config, missing, unexpected)
    out: dict[str, Tensor] = {}
    for entry in wanted:
        whole = _as_ours(entry, named[entry.theirs])
        sizes = [shapes[name] for name in entry.canonical]
        rows = sum(size[0] for size in sizes) if len(sizes) > 1 else sizes[0][0]
        if tuple(whole.shape) != (rows, *sizes[0][1:]):
            raise _misshaped(entry, named[entry.theirs], (rows, *sizes[0][1:]))
        parts = torch.split(whole, [size[0] for size in sizes]) if len(sizes) > 1 else (whole,)
        out |= {name: part.contiguous() for name, part in zip(entry.canonical, parts, strict=True)}
    return out


def _normalised(family: Family, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix of headed classes and with today's endings; tensors without information are left out."""
    out: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        short = name.removeprefix(family.prefix)
        for old, new in family.renamed:
            short = short.removesuffix(old) + new if short.endswith(old) else short
        if short.endswith(family.inert or ("\0",)):
            continue
        if short in out:
            what = f"the checkpoint holds {short!r} twice, with and without the prefix {family.prefix!r}"
            raise CheckpointError(what, remedy="keep one of them")
        if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
            what = f"the tensor {name!r} is {tensor.dtype}: quantised weights are not loaded"
            raise CheckpointError(what, remedy="use the unquantised checkpoint (float32, bfloat16 or float16)")
        out[short] = tensor
    return out


def _drop_duplicates(config: KernelConfig, named: dict[str, Tensor], expected: set[str]) -> None:
    """Removes second copies of tied tensors where they are equal; refuses them where they differ."""
    family = FAMILIES[config.family]
    for copy, source in family.aliases.items():
        source = source.removeprefix(family.prefix)
        if copy in expected or copy not in named or source not in named:
            continue
        if not torch.equal(named[copy], named[source]):
            what = f"config.json ties {copy!r} to {source!r}, and their values differ"
            raise CheckpointError(what, remedy='set "tie_word_embeddings": false in config.json if both are meant')
        del named[copy]
    if not config.tied:
        for old, new in family.untied:
            if new in expected and new in named:
                named.pop(old, None)


def _drop_unused(family: Family, named: dict[str, Tensor], expected: set[str]) -> None:
    extra = [name for name in named if name not in expected and name.endswith(family.unused or ("\0",))]
    for name in extra:
        del named[name]
    if extra:
        _log.warning("tensors that this class does not use were left out: %s", ", ".join(extra))


def _mismatch(config: KernelConfig, missing: list[str], unexpected: list[str]) -> CheckpointError:
    def some(names: list[str]) -> str:
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    kind = FAMILIES[config.family].classes.get(config.head, config.family)
    parts = [f"missing: {some(missing)}"] if missing else []
    parts += [f"unexpected: {some(unexpected)}"] if unexpected else []
    close = get_close_matches(missing[0], unexpected, n=1, cutoff=0.8) if missing else []
    remedy = (
        f"was {close[0]!r} renamed? it should be {missing[0]!r}"
        if close
        else ("compare config.json (architectures, layers, biases, tie_word_embeddings) with the tensors")
    )
    return CheckpointError(f"the tensors are not those of a {kind}: {'; '.join(parts)}", remedy=remedy)


def _misshaped(entry: Entry, found: Tensor, wanted: tuple[int, ...]) -> CheckpointError:
    stored = wanted[::-1] if entry.transposed else wanted
    what = f"the tensor {entry.theirs!r} has the shape {tuple(found.shape)}; config.json asks for {tuple(stored)}"
    return CheckpointError(what, remedy="correct the sizes in config.json, or fetch the checkpoint again")
