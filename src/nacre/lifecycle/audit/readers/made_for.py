"""Whether an adapter was made for a base: by the digest that it keeps of the weights it was trained beside.

The digest is its writer's word, as a name is, but one that fits a single model. Imports torch; no code of a file runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from nacre.errors import CheckpointError, ConfigError, NacreError
from nacre.kernel import hf
from nacre.kernel.adapters import peft
from nacre.kernel.adapters.peft_files import BASE
from nacre.kernel.config import Head, Pooling
from nacre.kernel.hf_files import HEAD
from nacre.kernel.model import Kernel
from nacre.lifecycle.audit.readers import files
from nacre.lifecycle.audit.readers.strict_json import parse_object
from nacre.lifecycle.audit.tensors import TensorInfo

MOST_BYTES = 4 << 30  # of a base, which is read as a whole
_LONGEST = 1 << 16
_POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "last")


def was_made_for(adapter: Path, infos: Mapping[str, TensorInfo], base: Path) -> bool | None:
    """None where the adapter keeps no digest of a kernel, or the base is no kernel, or larger than 4 GiB."""
    if not (adapter / BASE).exists() or not base.is_dir() or _size(base) > MOST_BYTES:
        return None
    try:
        told = parse_object(files.read_whole(files.inside(adapter, BASE), _LONGEST), adapter / BASE).get("base")
        if not str(told).startswith("kernel:"):
            return None
        if (adapter / HEAD).exists():
            files.inside(adapter, HEAD)
        kernel = hf.load(base)
    except (NacreError, OSError):
        return None
    return _fits(kernel, adapter) or any(_fits_under(kernel, adapter, *head) for head in _heads(infos))


def _fits_under(kernel: Kernel, adapter: Path, head: Head, labels: tuple[str, ...], pooling: Pooling | None) -> bool:
    try:
        return _fits(kernel.with_head(head, labels=labels, pooling=pooling), adapter)
    except ConfigError:  # a head that this kernel cannot have
        return False


def _fits(kernel: Kernel, adapter: Path) -> bool:
    try:
        return peft.made_for(kernel, adapter) is True
    except CheckpointError:  # it brings a head that is not this kernel's
        return False


def _heads(infos: Mapping[str, TensorInfo]) -> Iterator[tuple[Head, tuple[str, ...], Pooling | None]]:
    """Heads under which the adapter may have been trained: none, or those of as many classes as it brings."""
    yield "none", (), None
    rows = [info.shape[0] for name, info in infos.items() if name.endswith(("classifier.weight", "score.weight"))]
    if rows:
        labels = tuple(map(str, range(rows[0])))
        yield "tag", labels, None
        for pooling in _POOLINGS:
            yield "classify", labels, pooling


def _size(folder: Path) -> int:
    return sum(os.stat(one).st_size for one in folder.iterdir() if one.is_file())
