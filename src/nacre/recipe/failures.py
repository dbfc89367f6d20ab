"""What the machine throws, in the words of Nacre's error family."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from nacre.errors import NacreError, ResourceError
from nacre.lazy import EXTRAS, missing

# RuntimeError texts of torch's allocators; they have no type of their own on a CPU.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "DefaultCPUAllocator")
_SMALLER = "use a smaller batch size with more accumulation, a shorter context, or activation checkpointing"


def translate(error: BaseException, folder: Path) -> NacreError | None:
    """The error to show for `error`, None when it is a fault in a program. `folder` is where work was being written."""
    if isinstance(error, NacreError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            f"the disk is full ({_free_mib(folder)}): {error.filename or folder}",
            remedy="free space, then run the same command again: complete steps stay, the cut one goes on",
        )
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return ResourceError(f"no memory left: {_first_line(error) or 'allocation failed'}", remedy=_SMALLER)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRAS:
        return missing((error.name or "").partition(".")[0])
    return None


def _is_torch_out_of_memory(error: BaseException) -> bool:
    if type(error).__name__ == "OutOfMemoryError" and type(error).__module__.startswith("torch"):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _free_mib(folder: Path) -> str:
    for place in (folder, *folder.parents):
        if place.exists():
            return f"{shutil.disk_usage(place).free // 2**20:,} MiB free under {place}"
    return "unknown space free"
