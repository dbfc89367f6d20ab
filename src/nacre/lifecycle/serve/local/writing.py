"""An answer under way: pieces of text as they come, then the whole; and how engines without slots write."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nacre.engine.base import BaseEngine
from nacre.engine.protocol import Generation, Prompt, Sampling
from nacre.errors import InputError
from nacre.lifecycle.serve.contract import Refusal
from nacre.lifecycle.serve.local.batcher import Bounds, Watch
from nacre.lifecycle.serve.local.worker import Pace, Worker, closing, full, refusal_of
from nacre.lifecycle.serve.tasks import stop


class Writing:
    """What a client waits for. Its queue holds no more than one entry per token that was asked for."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[str | Generation | Refusal] = asyncio.Queue()
        self.left = self.begun = self.ended = False

    def say(self, what: str | Generation | Refusal) -> None:
        """Adds a piece, or the end. From the event loop."""
        self.begun = True
        if not self.left:
            self._said.put_nowait(what)

    async def next(self) -> str | Generation:
        """The next piece, or at last the whole answer; raises Refusal where there is none."""
        found = await self._said.get()
        self.ended = not isinstance(found, str)
        if isinstance(found, Refusal):
            raise found
        return found

    async def whole(self) -> Generation:
        """The answer, once it is whole. A caller that is cancelled leaves."""
        try:
            while True:
                if isinstance(found := await self.next(), Generation):
                    return found
        finally:
            self.leave()

    def leave(self) -> None:
        """Nobody waits any more: the slot is free after the round under way."""
        self.left = True


class Writer(Protocol):
    """What writes the answers of a model."""

    def start(self) -> None: ...

    async def write(self, prompt: Prompt, how: Sampling) -> Writing: ...

    async def close(self) -> None: ...


@dataclass(eq=False)
class _Seat:
    prompt: Prompt
    how: Sampling
    writing: Writing


class _NobodyListens(Exception):
    """Ends a batch whose clients have all left."""


class Rounds:
    """Writes with any engine, in batches of requests with the same settings; a batch is written to its end.

    For engines that are not our kernel: their generation takes no text in or out between two tokens.
    """

    def __init__(self, engine: BaseEngine, worker: Worker, bounds: Bounds, watch: Watch | None = None) -> None:
        self.name, self.engine, self.bounds, self.pace = engine.name, engine, bounds, Pace()
        self._worker, self._watch = worker, watch
        self._waiting: deque[_Seat] = deque()
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._running: list[_Seat] = []

    def start(self) -> None:
        """Begins to write."""
        self._task = asyncio.create_task(self._write(), name=f"rounds of {self.name}")

    async def write(self, prompt: Prompt, how: Sampling) -> Writing:
        """A text under way. Raises Refusal (429) where the queue is full, Unsupported for what the engine cannot."""
        if self._task is None:
            raise closing(self.name)
        self.engine.require_prompts([prompt])
        waiting = sum(not seat.writing.left for seat in self._waiting)
        if waiting >= self.bounds.queue:
            raise full(self.name, waiting, self.pace.wait_s(waiting))
        writing = Writing()
        self._waiting.append(_Seat(prompt, how, writing))
        self._came.set()
        self._tell()
        return writing

    async def close(self) -> None:
        """Ends after the batch under way; whoever still waits is told."""
        task, self._task = self._task, None
        await stop(task)
        for seat in [*self._running, *self._waiting]:
            seat.writing.say(closing(self.name))
            seat.writing.leave()
        self._waiting.clear()

    async def _write(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            while self._waiting:
                if len(self._waiting) < self.bounds.most:
                    await asyncio.sleep(self.bounds.wait_s)
                self._running = self._next()
                self._tell()
                if self._running:
                    began = time.monotonic()
                    await self._answer(self._running)
                    self.pace.note(time.monotonic() - began, len(self._running))
                self._running = []
                self._tell()

    def _next(self) -> list[_Seat]:
        """The oldest request, and those with the same settings."""
        waiting = [seat for seat in self._waiting if not seat.writing.left]
        batch = [seat for seat in waiting if seat.how == waiting[0].how][: self.bounds.most]
        self._waiting = deque(seat for seat in waiting if seat not in batch)
        return batch

    async def _answer(self, batch: Sequence[_Seat]) -> None:
        try:
            answers = await self._worker.do(self._generate, batch, asyncio.get_running_loop())
        except _NobodyListens:
            return
        except InputError as error:
            begun = [seat for seat in batch if seat.writing.begun or len(batch) == 1]
            for seat in begun:  # what was said cannot be said again
                seat.writing.say(refusal_of(error, self.name))
            for seat in batch:
                if seat not in begun:
                    await self._answer([seat])
            return
        except Exception as error:  # noqa: BLE001 - the outermost frame of a model: every waiting client is told
            refusal = refusal_of(error, self.name)
            for seat in batch:
                seat.writing.say(refusal)
            return
        for seat, answer in zip(batch, answers, strict=True):
            seat.writing.say(answer)

    def _generate(self, batch: Sequence[_Seat], loop: asyncio.AbstractEventLoop) -> list[Generation]:
        """In the model's thread."""
        heard = [0] * len(batch)

        def hear(place: int, piece: str) -> None:
            if all(seat.writing.left for seat in batch):
                raise _NobodyListens
            heard[place] += 1
            loop.call_soon_threadsafe(batch[place].writing.say, piece)

        streams = self.engine.capabilities.stream
        prompts = [seat.prompt for seat in batch]
        answers = self.engine.generate(prompts, batch[0].how, on_token=hear if streams else None)
        for seat, answer, pieces in zip(batch, answers, heard, strict=True):
            if not pieces and answer.text:
                loop.call_soon_threadsafe(seat.writing.say, answer.text)
        return answers

    def _tell(self) -> None:
        if self._watch is not None:
            self._watch(len(self._waiting), len(self._running))
