"""Several processes behind one socket: begun, watched, begun again where one dies, and ended together.

The parent answers nothing itself: it binds the socket, forks, and waits. It runs no thread and no event loop, so that
forking is safe at any time; what it has imported the workers share. uvicorn's own supervisor was not taken: it pickles
the application, begins a dying worker again without pause, and leaves its workers behind when it is killed.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from nacre.errors import ConfigError, NacreError, ResourceError, UsageError
from nacre.recipe.failures import translate

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD) if sys.platform != "win32" else ()
_READY = b"ready\n"
_LONGEST_PAUSE_S = 30.0
_LASTING_S = 60.0  # a worker that lived so long begins its successor without a pause
_BEYOND_DRAIN_S = 15.0


@dataclass(frozen=True)
class Place:
    """A worker among the others: number `slot` (from 0) of `of`; `folder` is where they tell each other what they
    count. `life` is a pipe whose other end the parent holds: it ends with the parent, however that ended. `restarts`
    is how often the worker of this slot has died."""

    slot: int
    of: int
    folder: Path
    life: int
    restarts: int = 0


Work = Callable[[Place, Callable[[], None]], None]


@dataclass
class _Worker:
    """One slot. `told` is what its process has written: that it is ready, or why it cannot start."""

    slot: int
    pid: int | None = None
    pipe: int | None = None
    told: bytes = b""
    began: float = 0.0
    due: float | None = None  # when it is begun (again)
    deaths: int = 0  # in a row, each soon after its beginning
    restarts: int = 0

    @property
    def is_ready(self) -> bool:
        return self.pid is not None and self.told.startswith(_READY)


@dataclass
class Crew:
    """`n` workers; `work(place, ready)` is what each does until SIGTERM, calling `ready` once it can answer.

    `started` is called when all are ready for the first time. `stop_s` is the time that a worker has to end.
    """

    n: int
    work: Work
    started: Callable[[Sequence[int]], None]
    stop_s: float
    _workers: list[_Worker] = field(init=False, default_factory=list)
    _were_ready: bool = field(init=False, default=False)
    _life: tuple[int, int] = field(init=False, default=(-1, -1))
    _wake: tuple[socket.socket, socket.socket] = field(init=False)

    def run(self, listener: socket.socket) -> None:
        """Runs until SIGTERM or SIGINT. Raises what a worker says of why it cannot start, before all were ready once;
        ResourceError where a worker had to be killed at the end."""
        if not hasattr(os, "fork"):
            raise UsageError("this system runs one worker only", remedy="leave --workers out")
        with tempfile.TemporaryDirectory(prefix="nacre-workers-") as folder, self._signals():
            self._life = os.pipe()
            self._workers = [_Worker(slot) for slot in range(self.n)]
            self._workers[0].due = 0.0  # the others follow when it could start: one mistake is told once
            try:
                while not self._asked_to_stop():
                    self._reap()
                    self._begin_due(Path(folder))
            finally:
                listener.close()  # or what comes now would wait for nobody
                self._stop()
                for end in self._life:
                    os.close(end)

    # --- one round

    def _asked_to_stop(self) -> bool:
        """Waits for a signal, a word of a worker, or the next beginning; whether the signal was one to stop."""
        due = [worker.due for worker in self._workers if worker.due is not None]
        pause = max(0.0, min(due) - time.monotonic()) if due else None
        pipes = {worker.pipe: worker for worker in self._workers if worker.pipe is not None}
        wake = self._wake[0].fileno()
        readable, _, _ = select.select([wake, *pipes], [], [], pause)
        for pipe in readable:
            if pipe != wake:
                self._hear(pipes[pipe])
        heard = self._wake[0].recv(4096) if wake in readable else b""
        return bool({signal.SIGTERM, signal.SIGINT} & set(heard))

    def _hear(self, worker: _Worker) -> None:
        assert worker.pipe is not None  # it was selected
        said = os.read(worker.pipe, 65536)
        worker.told += said
        if not said:
            os.close(worker.pipe)
            worker.pipe = None
        if not self._were_ready and worker.is_ready:
            for other in self._workers:
                if other.pid is None and other.due is None:
                    other.due = 0.0
            if all(one.is_ready for one in self._workers):
                self._were_ready = True
                self.started([one.pid for one in self._workers if one.pid is not None])

    def _reap(self) -> None:
        for worker in self._workers:
            status = _ended(worker)
            if status is None:
                continue
            why = _reason(worker, status)
            if not self._were_ready:
                raise why
            worker.deaths = 0 if time.monotonic() - worker.began > _LASTING_S else worker.deaths + 1
            worker.restarts += 1
            pause = min(_LONGEST_PAUSE_S, 2.0 ** (worker.deaths - 2)) if worker.deaths > 1 else 0.0
            worker.due = time.monotonic() + pause
            _log.error("worker %d: %s; another begins in %g s", worker.slot + 1, why.message, pause)

    def _begin_due(self, folder: Path) -> None:
        for worker in self._workers:
            if worker.due is not None and worker.due <= time.monotonic():
                worker.due = None
                self._begin(worker, folder)

    def _begin(self, worker: _Worker, folder: Path) -> None:
        inner, outer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        worker.began, worker.told = time.monotonic(), b""
        os.set_blocking(inner, False)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # one that comes now waits until the child has its own ways
        worker.pid = os.fork()
        if worker.pid == 0:
            os.close(inner)
            self._be(Place(worker.slot, self.n, folder, self._life[0], worker.restarts), outer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(outer)
        worker.pipe = inner

    def _be(self, place: Place, told: int) -> NoReturn:
        """The life of a worker, in its own process."""
        code = 1
        try:
            os.close(self._life[1])
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this one in order
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self.work(place, lambda: _tell(told, _READY))
            code = 0
        except Exception as error:  # noqa: BLE001 - the outermost frame of a process
            known = translate(error, place.folder)
            if known is None:
                _log.exception("worker %d failed", place.slot + 1)
                known = ResourceError(f"it failed: {type(error).__name__}", remedy="a fault in Nacre: see above")
            code = known.exit_code if isinstance(known, NacreError) else 1
            _tell(told, json.dumps({"message": known.message, "remedy": known.remedy, "code": code}).encode())
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    # --- the end

    def _stop(self) -> None:
        """Ends every worker: SIGTERM, then SIGKILL for those that are late, which raises ResourceError."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self.stop_s
        while self._living() and time.monotonic() < deadline:
            select.select([self._wake[0]], [], [], 0.2)
            with suppress(BlockingIOError):
                self._wake[0].recv(4096)
        late = self._living()
        if late:
            self._signal(signal.SIGKILL)
            while self._living():
                time.sleep(0.02)
            raise ResourceError(
                f"{len(late)} workers did not end within {self.stop_s:g} s and were killed",
                remedy="nothing answered is lost; see the log for what they were at",
            )

    def _living(self) -> list[_Worker]:
        for worker in self._workers:
            _ended(worker)
        return [worker for worker in self._workers if worker.pid is not None]

    def _signal(self, number: int) -> None:
        for worker in self._living():
            if worker.pid is not None:
                os.kill(worker.pid, number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals arrive as bytes on a socket, so that one `select` waits for everything."""
        self._wake = socket.socketpair()
        for end in self._wake:
            end.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        fd = signal.set_wakeup_fd(self._wake[1].fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in self._wake:
                end.close()


def stop_time_s(drain_s: float) -> float:
    """How long a worker may take to end: what is under way, and closing what is open."""
    return drain_s + _BEYOND_DRAIN_S


def _ended(worker: _Worker) -> int | None:
    """The exit code of a process that has ended since (negative: its signal); what it said is read to its end."""
    if worker.pid is None:
        return None
    pid, status = os.waitpid(worker.pid, os.WNOHANG)
    if pid == 0:
        return None
    worker.pid = None
    if worker.pipe is not None:
        with suppress(BlockingIOError):  # something that it began still holds the other end
            while said := os.read(worker.pipe, 65536):
                worker.told += said
        os.close(worker.pipe)
        worker.pipe = None
    return os.waitstatus_to_exitcode(status)


def _reason(worker: _Worker, status: int) -> NacreError:
    """Why a worker ended: what it said, else its exit code or signal."""
    said = worker.told.removeprefix(_READY)
    if said:
        found = json.loads(said)
        kind = ConfigError if found["code"] == 2 else ResourceError
        return kind(found["message"], remedy=found["remedy"])
    how = f"was killed by signal {-status}" if status < 0 else f"ended with code {status}"
    more = " (out of memory?)" if status == -9 else ""
    return ResourceError(f"it {how}{more}", remedy="see its log; fewer workers need less memory: --workers")


def _tell(pipe: int, words: bytes) -> None:
    with suppress(BrokenPipeError):  # the parent has gone: nobody listens
        os.write(pipe, words)
