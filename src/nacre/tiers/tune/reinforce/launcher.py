"""What the sandbox starts: takes everything from its own process that a test does not need, then runs a program.

Run as a file, by `python -I`, with its orders on stdin; imports nothing of Nacre.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SET_SECCOMP, _SET_NO_NEW_PRIVILEGES, _FILTER = 22, 38, 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
# Audit number of the architecture; the calls by their numbers there: to start a process or thread, to signal or trace
# another one, to open a socket.
_CALLS = {
    "x86_64": (0xC000003E, (41, 53, 56, 57, 58, 59, 62, 101, 129, 200, 234, 297, 310, 311, 322, 424, 425, 435)),
    "aarch64": (0xC00000B7, (117, 129, 130, 131, 138, 198, 199, 220, 221, 240, 270, 271, 281, 424, 425, 435)),
}

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_PATH_BENEATH, _VERSION = 1, 1
# Landlock's rights by its version: what making and moving need is in all, cutting files short since 3, devices since 5.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_READ_FILE, _READ_FOLDER, _WRITE_FILE, _OF_A_DEVICE = 1 << 2, 1 << 3, 1 << 1, 1 << 15
# What programs read beside the interpreter's own library: shared objects and where they lie, time zones.
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")


def main() -> None:
    orders = json.load(sys.stdin.buffer)
    os.close(0)
    report = os.dup(orders["report"])
    told = _confine(orders)
    os.write(report, (json.dumps(told) + "\n").encode())
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        exec(compile(orders["code"], "<answer>", "exec"), names)
    except BaseException:  # noqa: BLE001 (the program of a model may raise anything)
        os.write(report, b"failed\n")
        return
    for test, mark in orders["tests"]:
        with contextlib.suppress(BaseException):
            exec(compile(test, "<test>", "exec"), names)
            os.write(report, f"{mark}\n".encode())


def _confine(orders: dict[str, float]) -> dict[str, bool]:
    """What could be taken away: the network, further processes, files of others."""
    libc = ctypes.CDLL(None, use_errno=True)
    offline = libc.unshare(_NEW_USER | _NEW_NETWORK) == 0
    mib = 2**20
    bounds = {
        resource.RLIMIT_CPU: int(orders["cpu_s"]),
        resource.RLIMIT_FSIZE: int(orders["file_mib"]) * mib,
        resource.RLIMIT_AS: int(orders["memory_mib"]) * mib,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for which, bound in bounds.items():
        resource.setrlimit(which, (bound, bound))
    libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # without it neither of the next two is granted
    shut = _shut_files(libc)
    filtered = _filter_calls(libc)
    return {"offline": offline or filtered, "alone": filtered or not _can_fork(), "shut": shut}


def _shut_files(libc: ctypes.CDLL) -> bool:
    """Leaves of the files its own folder and, to be read, Python's library (Landlock, Linux 5.13); whether that holds.

    Before version 3 (Linux 6.2) files elsewhere can still be cut short: that does not count as held.
    """
    libc.syscall.restype = ctypes.c_long
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    every = (1 << _RIGHTS.get(version, 16)) - 1
    rules = libc.syscall(_CREATE_RULESET, struct.pack("Q", every), ctypes.c_size_t(8), 0)
    if rules < 0:
        return False
    library = {*sys.path, *(os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")), *_SYSTEM}
    allowed = dict.fromkeys(sorted(library), _READ_FILE | _READ_FOLDER)
    allowed |= {os.getcwd(): every & ~_OF_A_DEVICE, os.devnull: _READ_FILE | _WRITE_FILE}
    try:
        granted = all(_granted(libc, rules, path, rights) for path, rights in allowed.items() if os.path.exists(path))
        return bool(granted and libc.syscall(_RESTRICT_SELF, rules, 0) == 0 and version >= 3)
    finally:
        os.close(rules)


def _granted(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> bool:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        held = rights if os.path.isdir(path) else rights & ~_READ_FOLDER
        return bool(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", held, place), 0) == 0)
    finally:
        os.close(place)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    """Makes the calls of `_CALLS` fail for good (seccomp, Linux's filter of system calls); whether that was possible.

    A limit on processes does not bind root, and a user namespace does not keep root's signals from other processes.
    """
    architecture, calls = _CALLS.get(platform.machine(), (0, ()))
    if not calls:
        return False
    # Load the architecture; another one than ours is killed, as are x86-64's calls by other numbers (x32).
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, architecture), (0x06, 0, 0, _KILL), (0x20, 0, 0, 0)]
    program += [(0x35, 0, 1, 0x40000000), (0x06, 0, 0, _KILL)]
    for left, call in zip(range(len(calls), 0, -1), calls, strict=True):
        program.append((0x15, left, 0, call))
    program += [(0x06, 0, 0, _ALLOW), (0x06, 0, 0, _REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    given = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    return bool(libc.prctl(_SET_SECCOMP, _FILTER, given, 0, 0) == 0)


def _can_fork() -> bool:
    try:
        child = os.fork()
    except OSError:
        return False
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


main()
