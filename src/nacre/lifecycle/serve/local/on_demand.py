"""Models that are opened when they are first asked, a few at a time, and closed again when others are wanted more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from nacre.errors import CheckpointError, NacreError
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.contract import Ability, Backend, Call, Refusal, Reply
from nacre.lifecycle.serve.local.offers import offer_of
from nacre.lifecycle.serve.local.worker import closing, left_s, too_late
from nacre.lifecycle.serve.tasks import stop
from nacre.lineage.store import Store

_log = logging.getLogger(__name__)
_NOT_AGAIN_S = 5.0  # after a start that failed, callers are told so without another try
Opener = Callable[[str, LocalConfig], Backend]


def when_asked(opener: Opener, store: Store, most: int) -> Opener:
    """An opener whose models start at their first call; `most` of them are open at once.

    What a model can do is read from its folder. Raises NacreError for a reference that names nothing, or nothing that
    answers.
    """
    room = Room(most)

    def open_later(name: str, config: LocalConfig) -> Backend:
        folder = store.resolve(config.ref).path
        try:
            offer = offer_of(folder)
        except ValueError as error:
            raise CheckpointError(f"{config.ref} cannot be served: {error}", remedy="run its recipe again") from None
        known = offer.abilities if offer is not None else frozenset()
        return OnDemand(name, partial(opener, name, config), known, room)

    return open_later


class Room:
    """Room for so many open models. Whoever comes when it is full takes the place of the least recently used idle
    model, or waits until one is idle: a model that is answering is never closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[OnDemand, None] = {}  # the least recently used first
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def enter(self, model: OnDemand) -> None:
        """Takes a place, when there is one."""
        async with self._turn:
            while len(self._open) >= self._most:
                self._changed.clear()
                idle = next((one for one in self._open if one.is_idle), None)
                if idle is None:
                    await self._changed.wait()
                    continue
                del self._open[idle]
                await idle.shut()
            self._open[model] = None

    def leave(self, model: OnDemand) -> None:
        """Gives a place back."""
        self._open.pop(model, None)
        self._changed.set()

    def used(self, model: OnDemand) -> None:
        """A model has answered: it is the most recently used one, and may be idle now."""
        if model in self._open:
            del self._open[model]
            self._open[model] = None
        self._changed.set()


class OnDemand:
    """A `contract.Backend` whose model is made and started at the first call, once for all who wait for it.

    A start that fails is a Refusal (503) for each of them; a call that comes later tries anew. `known` is what it can
    do as far as can be told before; once open, the model itself says.
    """

    def __init__(self, name: str, make: Callable[[], Backend], known: frozenset[Ability], room: Room) -> None:
        self._name, self._make, self._known, self._room = name, make, known, room
        self._model: Backend | None = None
        self._opening: asyncio.Task[None] | None = None
        self._failed: tuple[float, Refusal] | None = None
        self._users = 0
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        return self._model.abilities if self._model is not None else self._known

    @property
    def identity(self) -> str:
        """What its answers depend on besides the request; empty until it is open."""
        return str(getattr(self._model, "identity", ""))

    @property
    def is_open(self) -> bool:
        return self._model is not None

    @property
    def is_idle(self) -> bool:
        """Whether it is open and nobody waits for an answer of it."""
        return self._model is not None and self._users == 0

    async def start(self) -> None:
        """Nothing yet."""

    async def answer(self, call: Call) -> Reply:
        """The reply, after a start where it is not open; raises Refusal."""
        use = _Use(self)
        try:
            model = await self._opened(call)
            reply = await model.answer(call)
        except BaseException:
            use.end()
            raise
        if reply.events is None:
            use.end()
        else:
            reply.events = _Held(reply.events, use)
        return reply

    async def healthy(self) -> str | None:
        """None while it is not open and nothing is known against it."""
        if self._model is not None:
            return await self._model.healthy()
        return self._failed[1].message if self._failed is not None else None

    async def close(self) -> None:
        self._closed = True
        opening, self._opening = self._opening, None
        await stop(opening)
        await self.shut()

    async def shut(self) -> None:
        """Closes the model; the next call opens it again."""
        model, self._model = self._model, None
        if model is not None:
            await model.close()

    async def _opened(self, call: Call) -> Backend:
        """The open model. A caller that leaves does not end the start that others wait for."""
        if self._closed:
            raise closing(self._name)
        if (model := self._ready()) is not None:
            return model
        if self._failed is not None and time.monotonic() < self._failed[0] + _NOT_AGAIN_S:
            raise self._failed[1]
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name=f"opening {self._name}")
        try:
            async with asyncio.timeout(left_s(call.deadline)):
                await asyncio.wait([self._opening])
        except TimeoutError:
            raise too_late(self._name) from None
        if (model := self._ready()) is not None:  # it has users now, so that nobody closed it in between
            return model
        raise self._failed[1] if self._failed is not None else closing(self._name)

    def _ready(self) -> Backend | None:
        return self._model

    async def _open(self) -> None:
        """The start, in a task of its own: it ends with a model, with what is wrong, or cancelled."""
        model: Backend | None = None
        try:
            await self._room.enter(self)
            model = await asyncio.to_thread(self._make)
            await model.start()
            self._model, self._failed = model, None
        except Exception as error:  # noqa: BLE001 - the outermost frame of a task: its callers are told
            self._failed = (time.monotonic(), _told(self._name, error))
        finally:
            self._opening = None
            if self._model is None:
                try:
                    if model is not None:
                        await model.close()
                finally:
                    self._room.leave(self)

    # --- who is using it

    def began(self) -> None:
        self._users += 1

    def ended(self) -> None:
        self._users -= 1
        self._room.used(self)


class _Use:
    """One call's hold on a model; ended once."""

    def __init__(self, model: OnDemand) -> None:
        self._model: OnDemand | None = model
        model.began()

    def end(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.ended()


class _Held:
    """The events of an answer, whose model counts as answering until they end or nobody listens any more."""

    def __init__(self, events: AsyncIterator[bytes], use: _Use) -> None:
        self._events, self._use = events, use

    def __aiter__(self) -> _Held:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._events)
        except BaseException:
            self._use.end()
            raise

    async def aclose(self) -> None:
        """Closes the source."""
        try:
            close = getattr(self._events, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._use.end()


def _told(name: str, error: Exception) -> Refusal:
    """What callers hear of a model that did not open."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, NacreError):
        why = f"{error.message}: {error.remedy}"
    else:
        _log.error("%s did not open: %s", name, type(error).__name__, exc_info=error)
        why = "the log of the gateway says why"
    return Refusal(
        503, f"{name} did not open: {why}", kind="server_error", code="model_not_opened", retry_after=_NOT_AGAIN_S
    )
