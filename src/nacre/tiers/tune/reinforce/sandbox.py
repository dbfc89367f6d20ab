"""Runs programs that a model wrote, where they can do little harm.

Each runs in a process of its own: Python in isolated mode (no environment, no user site), a temporary folder that is
removed, bounds on CPU time, memory, files and descriptors; on Linux no further processes or threads, no signals to
others and no network, and where the kernel has Landlock (6.2 and later) no files but its own folder and, to be read,
Python's library; another user where Nacre runs as root; after the time limit the whole group is killed.

Not prevented: without Landlock, reading what its user may read and writing where it may write, within the size of one
file at a time; with it, asking whether a file exists, how large it is and whose; flaws of the kernel and of Python;
looking into its own process for what the tests expect. For programs of an untrusted model a container or a virtual
machine around all of Nacre is the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nacre.errors import ResourceError

_LAUNCHER = Path(__file__).with_name("launcher.py")
_NOBODY = 65534
_READ = 65_536  # bytes of what a program reports


@dataclass(frozen=True)
class Limits:
    """`timeout_s` of wall time, `cpu_s` of processor time, `memory_mib` of address space, `file_mib` of one file."""

    timeout_s: float = 10.0
    cpu_s: int = 5
    memory_mib: int = 512
    file_mib: int = 16


@dataclass(frozen=True)
class Ran:
    """How many tests passed, and how the program ended: `done`, `timeout`, `failed` (an error before the tests), or
    `died` (killed by a limit, or left by itself)."""

    passed: int
    ended: str


class Sandbox:
    """`check()` finds out what this machine lets be prevented: `prevents` and `allows` then say so, `offline` whether
    the network is taken away."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.offline = False
        self.prevents: list[str] = []
        self.allows: list[str] = []
        # The interpreter may lie where no other user may read: then the program keeps the user.
        self._drops = os.geteuid() == 0 and _readable_by_others(Path(sys.executable))

    def check(self) -> None:
        """Tries the protections once. ResourceError where not even a harmless program runs."""
        ran, told = self._run("", ("import json",))
        if ran.passed != 1:
            raise ResourceError(
                f"tests: a harmless program did not run in the sandbox (it {ran.ended}: {told.get('why', 'no word')})",
                remedy="raise rewards.tests.memory_mib or timeout_s",
            )
        self.offline = bool(told.get("offline"))
        shut = bool(told.get("shut"))
        held = {
            "network": self.offline,
            "further processes": bool(told.get("alone")),
            "files of other users": shut or os.geteuid() != 0 or self._drops,
            "files outside its own folder and Python's library": shut,
            "CPU time, memory and size of files beyond the limits": True,
        }
        self.prevents = [name for name, is_held in held.items() if is_held]
        self.allows = [name for name, is_held in held.items() if not is_held]

    def run(self, code: str, tests: Sequence[str]) -> Ran:
        """Runs `code`, then each of `tests` in the same names; a test passes that raises nothing."""
        return self._run(code, tests)[0]

    def _run(self, code: str, tests: Sequence[str]) -> tuple[Ran, Mapping[str, Any]]:
        folder = tempfile.mkdtemp(prefix="nacre-tests-")
        try:
            with tempfile.TemporaryFile() as report:
                return self._in(folder, code, tests, report.fileno())
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _in(self, folder: str, code: str, tests: Sequence[str], report: int) -> tuple[Ran, Mapping[str, Any]]:
        # Only the launcher, which reads its orders before the program runs, can write the mark of a passed test.
        marks = [secrets.token_hex(8) for _ in tests]
        orders = {"code": code, "tests": list(zip(tests, marks, strict=True)), "report": report, **asdict(self.limits)}
        other: dict[str, Any] = {}
        if self._drops:
            os.chown(folder, _NOBODY, _NOBODY)
            other = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", str(_LAUNCHER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            pass_fds=(report,),
            start_new_session=True,
            **other,
        )
        ended = "died"
        try:
            process.communicate(json.dumps(orders).encode(), timeout=self.limits.timeout_s)
        except subprocess.TimeoutExpired:
            ended = "timeout"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        lines = os.pread(report, _READ, 0).decode("utf-8", "replace").split("\n")
        passed = sum(mark in lines for mark in marks)
        if ended != "timeout" and process.returncode == 0:
            ended = "failed" if "failed" in lines else "done"
        told = json.loads(lines[0]) if lines[0].startswith("{") else {}
        return Ran(passed, ended), told


def _readable_by_others(interpreter: Path) -> bool:
    """Whether every folder on the way to an interpreter and its library, and to the launcher, may be entered."""
    places = (interpreter, interpreter.resolve(), Path(os.__file__), _LAUNCHER.resolve())
    return all(folder.stat().st_mode & 0o001 for place in places for folder in place.parents)
