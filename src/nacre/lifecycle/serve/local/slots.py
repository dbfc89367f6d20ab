"""Continuous batching: texts of many requests are written together, and each comes and goes between two tokens.

A round is one token of every text under way. A new request waits for the round under way and for a free slot, not for
the texts that are being written. See `kernel/running.py`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from nacre.engine.local import Pieces
from nacre.engine.native import STOPPED, Native, generation_config
from nacre.engine.protocol import Generation, Prompt, Sampling, Timing, Usage
from nacre.kernel.running import Asked, Drawn, GenerationConfig, Running
from nacre.lifecycle.serve.contract import Refusal
from nacre.lifecycle.serve.local.batcher import Bounds, Watch
from nacre.lifecycle.serve.local.worker import Pace, Worker, closing, full, refusal_of
from nacre.lifecycle.serve.local.writing import Writing
from nacre.lifecycle.serve.tasks import stop

_log = logging.getLogger(__name__)
_PROMPT_TOKENS = 2048  # read in one round at most, unless one prompt is longer: texts under way wait for it


@dataclass(eq=False)
class _Seat:
    """A request with its place in the batch."""

    number: int
    ids: list[int]
    config: GenerationConfig
    writing: Writing
    pieces: Pieces
    began: float
    admitted: float = 0.0
    first: float | None = None


@dataclass
class _Round:
    """What one round did: pieces of text by seat, and the answers that are whole."""

    pieces: list[tuple[_Seat, str]] = field(default_factory=list)
    done: list[tuple[_Seat, Generation]] = field(default_factory=list)


class Slots:
    """Writes with a decoder or an encoder-decoder of ours: `bounds.most` texts at once, `bounds.queue` waiting."""

    def __init__(self, engine: Native, worker: Worker, bounds: Bounds, watch: Watch | None = None) -> None:
        self.name, self.engine, self.bounds, self.pace = engine.name, engine, bounds, Pace()
        self._worker, self._watch = worker, watch
        self._running = self._fresh()
        self._waiting: deque[_Seat] = deque()
        self._seats: dict[int, _Seat] = {}
        self._numbers = 0
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def _fresh(self) -> Running:
        """Nothing under way. The room is the engine's: another adapter may act on the kernel just now."""
        running = Running(self.engine.kernel.eval(), self.engine.tokenizer.decode)
        running.room = self.engine.room
        return running

    def start(self) -> None:
        """Begins to write."""
        self._task = asyncio.create_task(self._write(), name=f"slots of {self.name}")

    async def write(self, prompt: Prompt, how: Sampling) -> Writing:
        """A text under way. Raises Refusal (429) where the queue is full, InputError for a prompt that cannot be."""
        if self._task is None:
            raise closing(self.name)
        self._refuse_when_full()
        self.engine.require_prompts([prompt])
        ids = await asyncio.to_thread(self.engine.prompt_ids, prompt)
        seed = secrets.randbits(30) if how.seed is None else how.seed
        config = generation_config(how, seed)
        self._running.check(Asked(0, ids, config))
        if self._task is None:
            raise closing(self.name)
        self._refuse_when_full()  # others came while the prompt was cut into tokens
        self._numbers += 1
        writing = Writing()
        pieces = Pieces(self.engine.tokenizer, how.stop)
        self._waiting.append(_Seat(self._numbers, ids, config, writing, pieces, time.monotonic()))
        self._came.set()
        self._tell()
        return writing

    async def close(self) -> None:
        """Ends; whoever still waits is told."""
        task, self._task = self._task, None
        await stop(task)
        self._fail(closing(self.name), [*self._seats.values(), *self._waiting])
        self._waiting.clear()

    def _refuse_when_full(self) -> None:
        waiting = sum(not seat.writing.left for seat in self._waiting)
        if waiting >= self.bounds.queue:
            raise full(self.name, waiting, self.pace.wait_s(waiting))

    async def _write(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            while self._waiting or self._seats:
                gone = [seat.number for seat in self._seats.values() if seat.writing.left]
                for number in gone:
                    del self._seats[number]
                new = self._admitted()
                self._seats |= {seat.number: seat for seat in new}
                if gone or new:
                    self._tell()
                try:
                    found = await self._worker.do(self._round, gone, new)
                except Exception as error:  # noqa: BLE001 - the outermost frame of a model: every waiting client is told
                    self._fail(refusal_of(error, self.name), list(self._seats.values()))
                    self._running = self._fresh()
                else:
                    self._deliver(found)

    def _admitted(self) -> list[_Seat]:
        """Those that sit down now: as many as there are slots, and as their prompts are not too much for one round."""
        new: list[_Seat] = []
        while self._waiting and len(self._seats) + len(new) < self.bounds.most:
            seat = self._waiting[0]
            if not seat.writing.left:
                width = max(len(one.ids) for one in [*new, seat])
                if new and width * (len(new) + 1) > _PROMPT_TOKENS:
                    break
                seat.admitted = time.monotonic()
                new.append(seat)
            self._waiting.popleft()
        return new

    def _round(self, gone: Sequence[int], new: Sequence[_Seat]) -> _Round:
        """One token of every text, in the model's thread."""
        self._running.leave(gone)
        self._running.admit([Asked(seat.number, seat.ids, seat.config) for seat in new])
        found = _Round()
        for drawn in self._running.step():
            self._take(self._seats[drawn.number], drawn, found)
        return found

    def _take(self, seat: _Seat, drawn: Drawn, found: _Round) -> None:
        if seat.first is None:
            seat.first = time.monotonic() - seat.began
        if drawn.token is not None and (piece := seat.pieces.take(drawn.token)):
            found.pieces.append((seat, piece))
        if drawn.done is None:
            return
        text = drawn.done.text if drawn.done.text is not None else self.engine.tokenizer.decode(drawn.done.ids)
        if rest := seat.pieces.rest(text):
            found.pieces.append((seat, rest))
        usage = Usage(len(seat.ids), len(drawn.done.ids), 1, "tokenizer")
        timing = Timing(time.monotonic() - seat.began, seat.first)
        found.done.append((seat, Generation(text, STOPPED[drawn.done.stopped], self.name, usage, timing)))

    def _deliver(self, found: _Round) -> None:
        for seat, piece in found.pieces:
            seat.writing.say(piece)
        for seat, answer in found.done:
            self.pace.note(time.monotonic() - seat.admitted, max(1, len(self._seats)))
            del self._seats[seat.number]
            seat.writing.say(answer)
        if found.done:
            self._tell()

    def _fail(self, refusal: Refusal, seats: Sequence[_Seat]) -> None:
        for seat in seats:
            seat.writing.say(refusal)
        self._seats.clear()

    def _tell(self) -> None:
        if self._watch is not None:
            self._watch(len(self._waiting), len(self._seats))
