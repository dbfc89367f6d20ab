"""Processes that are cut short: killed at the n-th file-system operation, or told then that the disk is full.

Python reports opening, renaming, creating, removing and listing through audit events; an operation is `about to happen`
when its event fires, so dying there leaves the disk as it was just before.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "os.truncate"}


class FileSystemFaults:
    """Counts the operations below `root`; at the `fatal`-th one `strike` is called. Audit hooks cannot be removed."""

    def __init__(self, root: Path, fatal: int | None, strike: Callable[[], None], *, writes: bool = False) -> None:
        """With `writes` only operations that need space on the disk count."""
        self.count = 0
        self._writes = writes
        self._root, self._fatal, self._strike = os.path.realpath(root), fatal, strike
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in _EVENTS or not arguments or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if not os.fsdecode(arguments[0]).startswith(self._root):
            return
        if self._writes and not _needs_space(event, arguments):
            return
        self.count += 1
        if self.count == self._fatal:
            self._strike()


def _needs_space(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.rename", "os.mkdir")


def die() -> None:
    """What `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full() -> None:
    """What writing to a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_child(work: Callable[[], int]) -> int:
    """Runs `work` in a forked process; gives its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
