"""Bytes of foreign files: regular files only, inside their folder, read by range and never mapped.

Ranges are read rather than mapped: a file cut short while it is mapped would end the process with a signal.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.said import say

CHUNK = 4 << 20  # bytes read at once: large enough for the disk, small enough for the processor's cache
FETCH_AGAIN = "fetch the file again from its source, or leave it out"
_MOST_SHOWN = 120


def shown(name: str) -> str:
    """A foreign name, safe to print: what is not printable (controls, text direction) is escaped, length is bounded."""
    cut = name if len(name) <= _MOST_SHOWN else name[:_MOST_SHOWN] + "…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)


def damaged(path: Path, what: str, remedy: str = FETCH_AGAIN) -> CheckpointError:
    """The error for a file that cannot be read as what it claims to be; `what` says why."""
    return CheckpointError(say("{where}: {reason}", where=shown(path.name), reason=what), remedy=remedy)


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`. Raises CheckpointError where it would lead out of it.

    Links that stay inside are followed, and those into `blobs` beside `snapshots`, as the Hugging Face cache has them.
    """
    parts = name.split("/")
    if (
        not name
        or "\0" in name
        or "\\" in name
        or Path(name).is_absolute()
        or any(one in ("", ".", "..") for one in parts)
    ):
        what = say("the file name {name} leads out of its folder", name=repr(shown(name)))
        raise CheckpointError(what, remedy=FETCH_AGAIN)
    path = folder / name
    try:
        real, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        what = say("the file {name} cannot be followed: {why}", name=repr(shown(name)), why=str(error))
        raise CheckpointError(what, remedy=FETCH_AGAIN) from error
    allowed = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(real.is_relative_to(one) for one in allowed):
        what = say("{name} is a link out of its folder", name=repr(shown(name)))
        raise CheckpointError(what, remedy="copy the file itself to its place")
    return path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a regular file. Raises CheckpointError for folders, pipes, devices and what cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no such name"
        raise damaged(path, say("cannot be opened: {why}", why=why), "check the path and its permissions") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise damaged(path, "is no regular file", "give a file or a folder of files")
        yield descriptor
    finally:
        os.close(descriptor)


def size_of(path: Path) -> int:
    """Bytes of a regular file. Raises CheckpointError."""
    with opened(path) as descriptor:
        return os.fstat(descriptor).st_size


def read_whole(path: Path, limit: int) -> bytes:
    """All bytes of a small file. Raises CheckpointError where it holds more than `limit`."""
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise damaged(path, say("holds {size:,} bytes, at most {limit:,} are read", size=size, limit=limit))
        return read_range(descriptor, path, 0, size)


def read_range(descriptor: int, path: Path, offset: int, n_bytes: int) -> bytes:
    """`n_bytes` from `offset`. Raises CheckpointError where the file ends before."""
    out = bytearray(n_bytes)
    fill(descriptor, path, offset, memoryview(out))
    return bytes(out)


def fill(descriptor: int, path: Path, offset: int, out: memoryview) -> None:
    """Fills `out` with the bytes from `offset`. Raises CheckpointError where the file ends before."""
    done = 0
    while done < len(out):
        try:
            got = os.preadv(descriptor, [out[done:]], offset + done)
        except OSError as error:
            what = say("cannot be read at byte {at:,}: {why}", at=offset + done, why=error.strerror)
            raise damaged(path, what) from error
        if got == 0:
            raise damaged(path, say("ends at byte {at:,}, inside a tensor or header", at=offset + done))
        done += got


def chunks(path: Path, offset: int, n_bytes: int, size: int = CHUNK) -> Iterator[memoryview]:
    """The range in pieces of `size`. One buffer is used again: a piece is valid until the next one."""
    with opened(path) as descriptor:
        buffer = memoryview(bytearray(min(size, n_bytes)))
        for start in range(0, n_bytes, size):
            piece = buffer[: min(size, n_bytes - start)]
            fill(descriptor, path, offset + start, piece)
            yield piece
