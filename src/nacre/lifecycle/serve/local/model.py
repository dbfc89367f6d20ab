"""What every local backend has: a name, a thread, a queue, and an orderly end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nacre.errors import NacreError
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.contract import Ability, Call, Refusal, Reply
from nacre.lifecycle.serve.local.batcher import Bounds
from nacre.lifecycle.serve.local.worker import Worker, left_s, refusal_of, too_late

T = TypeVar("T")
Queued = Callable[[str, int, int], None]  # (model, waiting, running): `Meters.queued`


class LocalModel:
    """A `contract.Backend` whose model runs in this process. Subclasses open it in `_open` and answer in `_answer`.

    `identity` is what its answers depend on besides the request, for the cache; None until it has started.
    """

    def __init__(
        self, name: str, config: LocalConfig, queued: Queued | None = None, worker: Worker | None = None
    ) -> None:
        self.config, self.identity = config, ""
        self._name, self._queued = name, queued
        self._abilities: frozenset[Ability] = frozenset()
        self._why: str | None = f"{name} has not started"
        self.bounds = Bounds(config.batch, config.wait_ms / 1000, config.queue)
        self.worker = worker or Worker(name)
        self._counts: dict[str, tuple[int, int]] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        """Known once it has started."""
        return self._abilities

    async def start(self) -> None:
        """Opens the model in its thread; raises NacreError where it can never answer."""
        await self.worker.do(self._open)
        self._begin()
        self._why = None

    async def answer(self, call: Call) -> Reply:
        """The reply; raises Refusal."""
        if self._why is not None:
            raise Refusal(503, f"{self._why}: try again later", kind="server_error", code="not_ready", retry_after=5.0)
        try:
            return await self._answer(call)
        except Refusal:
            raise
        except NacreError as error:
            raise refusal_of(error, self.name) from error

    async def healthy(self) -> str | None:
        return self._why

    async def close(self) -> None:
        self._why = f"{self.name} is closed"
        await self._end()
        await self.worker.close(self._shut)

    def watch(self, part: str) -> Callable[[int, int], None]:
        """Tells the meters of one of its queues, summed with the others."""

        def tell(waiting: int, running: int) -> None:
            self._counts[part] = (waiting, running)
            if self._queued is not None:
                sums = [sum(one) for one in zip(*self._counts.values(), strict=True)]
                self._queued(self.name, sums[0], sums[1])

        return tell

    async def in_time(self, work: Awaitable[T], call: Call) -> T:
        """The result of `work`; raises Refusal (504) at the call's deadline."""
        try:
            async with asyncio.timeout(left_s(call.deadline)):
                return await work
        except TimeoutError:
            raise too_late(self.name) from None

    @abstractmethod
    def _open(self) -> None:
        """Opens the model and sets abilities and identity, in its thread."""

    @abstractmethod
    def _begin(self) -> None:
        """Starts what collects requests, in the event loop."""

    @abstractmethod
    async def _answer(self, call: Call) -> Reply: ...

    @abstractmethod
    async def _end(self) -> None:
        """Ends what `_begin` started."""

    @abstractmethod
    def _shut(self) -> None:
        """Closes the model, in its thread; also where it was never opened."""
