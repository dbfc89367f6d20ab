"""One thread per model, how fast it works, and what its errors are to a client."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from nacre.engine.openai_wire import Malformed
from nacre.engine.protocol import EngineError
from nacre.errors import InputError
from nacre.lifecycle.serve.contract import Refusal

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_NEW = 0.2  # weight of the newest measurement
_LONGEST_WAIT_S = 120.0


class Worker:
    """The thread in which a model runs: what is asked of it is done one thing after the other, in order."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"nacre-{name}")
        self._closed = False

    async def do(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """The result of `work` in the thread. A caller that is cancelled leaves it running."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **options))

    async def close(self, last: Callable[[], object] | None = None) -> None:
        """Does `last` in the thread, after what is under way, and ends it. Calling it twice does no harm."""
        if self._closed:
            return
        self._closed = True
        if last is not None:
            await asyncio.get_running_loop().run_in_executor(self._pool, last)
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


class Turn(Worker):
    """The thread of another worker, where `enter` comes before each piece of work: models that share one kernel."""

    def __init__(self, thread: Worker, enter: Callable[[], None], *, owns: bool = False) -> None:
        self._thread, self._enter, self._owns = thread, enter, owns
        self._closed = False

    async def do(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        def entered() -> T:
            self._enter()
            return work(*args, **options)

        return await self._thread.do(entered)

    async def close(self, last: Callable[[], object] | None = None) -> None:
        """Does `last` in the thread, and ends the thread where this worker owns it."""
        if self._closed:
            return
        self._closed = True
        if self._owns:
            await self._thread.close(last)
        elif last is not None:
            await self._thread.do(last)


class Pace:
    """How long one piece of work takes, as measured: a moving average, in seconds."""

    def __init__(self) -> None:
        self.seconds_each: float | None = None

    def note(self, seconds: float, items: int = 1) -> None:
        """`items` were done in `seconds`."""
        each = seconds / max(items, 1)
        old = self.seconds_each
        self.seconds_each = each if old is None else (1 - _NEW) * old + _NEW * each

    def wait_s(self, items: int) -> float:
        """Seconds until `items` are done: whole seconds, at least one, at most two minutes."""
        return float(min(max(1, math.ceil(items * (self.seconds_each or 0.0))), _LONGEST_WAIT_S))


def full(name: str, waiting: int, retry_after: float) -> Refusal:
    """429 of a model whose queue is full."""
    return Refusal(
        429, f"{name} has {waiting} requests waiting and takes no more now: try again in {retry_after:.0f} s",
        kind="rate_limit_error", code="queue_full", retry_after=retry_after,
    )  # fmt: skip


def too_late(name: str) -> Refusal:
    """504 of a call whose time is up."""
    return Refusal(
        504, f"{name} did not answer in time: ask for fewer tokens, or raise total_s of this model",
        kind="upstream_error", code="timeout",
    )  # fmt: skip


def closing(name: str) -> Refusal:
    """503 while a model is being closed."""
    return Refusal(
        503, f"{name} is being closed: try again later", kind="server_error", code="closing", retry_after=5.0
    )


def refusal_of(error: Exception, name: str) -> Refusal:
    """What a client is told of an error: what it can change, or that the model failed (which is logged)."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Malformed):
        return Refusal(400, str(error))
    if isinstance(error, InputError):
        return Refusal(400, f"{error.message}: {error.remedy}")
    if isinstance(error, EngineError):
        if error.blames_the_request:
            return Refusal(400, f"{error.message}: {error.remedy}")
        return Refusal(502, f"{name} could not answer: {error.remedy}", kind="upstream_error", code="engine_failed")
    _log.error("%s failed: %s", name, type(error).__name__, exc_info=error)
    return Refusal(500, f"{name} failed: the log of the gateway says why", kind="server_error", code="model_failed")


def left_s(deadline: float) -> float:
    """Seconds until a monotonic deadline."""
    return max(0.0, deadline - time.monotonic())
