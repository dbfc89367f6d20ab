"""Dynamic batches: texts of many requests meet in one call of a model that answers them all at once.

A batch is whatever waits when the model is free, up to `most`; the first text waits at most `wait_s` for company.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nacre.errors import InputError
from nacre.lifecycle.serve.contract import Refusal
from nacre.lifecycle.serve.local.worker import Pace, Worker, closing, full, refusal_of
from nacre.lifecycle.serve.tasks import stop

In = TypeVar("In")
Out = TypeVar("Out")
Watch = Callable[[int, int], None]  # (waiting, running)


@dataclass(frozen=True)
class Bounds:
    """`most` items per batch; `wait_s` to wait for company; `queue` requests may wait, with `most` items each."""

    most: int = 16
    wait_s: float = 0.002
    queue: int = 64

    @property
    def items(self) -> int:
        """Items that may wait: no request may have more."""
        return self.queue * self.most


@dataclass(eq=False)
class _Request(Generic[In, Out]):
    """Items of one request, and the answers so far."""

    items: Sequence[In]
    group: Hashable
    future: asyncio.Future[list[Out]]
    answers: dict[int, Out] = field(default_factory=dict)

    def take(self, place: int, answer: Out) -> None:
        self.answers[place] = answer
        if len(self.answers) == len(self.items) and not self.future.done():
            self.future.set_result([self.answers[at] for at in range(len(self.items))])

    def fail(self, refusal: Refusal) -> None:
        if not self.future.done():
            self.future.set_exception(refusal)


class Batcher(Generic[In, Out]):
    """Collects items into batches for `run`, which works in the model's thread and keeps their order.

    Items are batched with others of the same group only. An item that `run` blames (InputError) fails its own request:
    the others of its batch are run again without it.
    """

    def __init__(
        self, name: str, run: Callable[[Sequence[In]], Sequence[Out]], worker: Worker, bounds: Bounds,
        watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self.name, self.bounds, self.pace = name, bounds, Pace()
        self._run, self._worker, self._watch = run, worker, watch
        self._waiting: deque[tuple[_Request[In, Out], int]] = deque()
        self._requests = self._running = 0
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that were not answered yet."""
        return self._requests

    def start(self) -> None:
        """Begins to collect."""
        self._task = asyncio.create_task(self._collect(), name=f"batches of {self.name}")

    async def ask(self, items: Sequence[In], group: Hashable = None) -> list[Out]:
        """The answers to `items`, in order. Raises Refusal: 429 where the queue is full, 400 for too many items."""
        if self._task is None:
            raise closing(self.name)
        if not items:
            return []
        if len(items) > self.bounds.items:
            raise Refusal(
                400, f"{len(items)} texts in one request, {self.name} takes {self.bounds.items}: send several requests"
            )
        if self._requests >= self.bounds.queue or len(self._waiting) + len(items) > self.bounds.items:
            raise full(self.name, self._requests, self.pace.wait_s(len(self._waiting) + self._running))
        request = _Request[In, Out](items, group, asyncio.get_running_loop().create_future())
        self._waiting.extend((request, place) for place in range(len(items)))
        self._requests += 1
        self._came.set()
        self._tell()
        try:
            return await request.future
        finally:
            self._requests -= 1
            self._tell()

    async def close(self) -> None:
        """Refuses what waits, and ends."""
        task, self._task = self._task, None
        await stop(task)
        while self._waiting:
            self._waiting.popleft()[0].fail(closing(self.name))

    async def _collect(self) -> None:
        while True:
            await self._came.wait()
            if len(self._waiting) < self.bounds.most:
                await asyncio.sleep(self.bounds.wait_s)
            batch = self._next()
            if not self._waiting:
                self._came.clear()
            if batch:
                await self._answer(batch)

    def _next(self) -> list[tuple[_Request[In, Out], int]]:
        """The oldest items of one group; those whose client has left are dropped."""
        batch: list[tuple[_Request[In, Out], int]] = []
        others: deque[tuple[_Request[In, Out], int]] = deque()
        while self._waiting and len(batch) < self.bounds.most:
            request, place = self._waiting.popleft()
            if request.future.done():
                continue
            if batch and batch[0][0].group != request.group:
                others.append((request, place))
            else:
                batch.append((request, place))
        self._waiting.extendleft(reversed(others))
        return batch

    async def _answer(self, batch: list[tuple[_Request[In, Out], int]]) -> None:
        self._running = len(batch)
        self._tell()
        began = time.monotonic()
        try:
            answers = await self._worker.do(self._run, [request.items[place] for request, place in batch])
        except InputError as error:
            await self._apart(batch, error)
        except asyncio.CancelledError:
            for request, _ in batch:
                request.fail(closing(self.name))
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a model: every waiting client is told
            refusal = refusal_of(error, self.name)
            for request, _ in batch:
                request.fail(refusal)
        else:
            for (request, place), answer in zip(batch, answers, strict=True):
                request.take(place, answer)
        finally:
            self._running = 0
            self.pace.note(time.monotonic() - began, len(batch))

    async def _apart(self, batch: list[tuple[_Request[In, Out], int]], error: InputError) -> None:
        """Runs the requests of a batch one by one, to find the one that is to blame."""
        requests = list(dict.fromkeys(request for request, _ in batch))
        if len(requests) == 1:
            requests[0].fail(refusal_of(error, self.name))
            return
        for request in requests:
            if not request.future.done():
                await self._answer([(one, place) for one, place in batch if one is request])

    def _tell(self) -> None:
        if self._watch is not None:
            self._watch(max(0, self._requests - self._running), self._running)
