"""A checkpoint or an engine's folder behind the gateway: chat, completions and embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nacre.engine.base import BaseEngine
from nacre.engine.local import LocalEngine
from nacre.engine.loopback_wire import Asked, embedding_json, score_json
from nacre.engine.opening import open_bare
from nacre.engine.protocol import Embedded, Generation, Prompt, Usage
from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.contract import Ability, Call, Refusal, Reply
from nacre.lifecycle.serve.local.batcher import Batcher
from nacre.lifecycle.serve.local.model import LocalModel, Queued
from nacre.lifecycle.serve.local.reading import read, texts_of
from nacre.lifecycle.serve.local.replying import answer_reply, json_reply, stream_reply, usage_of
from nacre.lifecycle.serve.local.worker import Worker
from nacre.lifecycle.serve.local.writing import Rounds, Writer, Writing
from nacre.recipe.machine import resolve_device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_DEFAULT_TOKENS = 512  # of a chat's answer that names no limit
_ABLE: tuple[tuple[str, Ability], ...] = (
    ("chat", "chat"), ("complete", "completions"), ("embed", "embeddings"), ("stream", "stream"),
)  # fmt: skip


class CheckpointModel(LocalModel):
    """A model that writes or embeds. Our kernel writes with continuous batching, other engines in rounds."""

    engine: BaseEngine | None = None

    def __init__(
        self, name: str, folder: Path, config: LocalConfig, queued: Queued | None = None, worker: Worker | None = None,
        opening: Callable[[], BaseEngine] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, config, queued, worker)
        self.folder, self._opening = folder, opening or self._at_folder
        self._writer: Writer | None = None
        self._vectors: Batcher[str, NDArray[np.float32]] | None = None
        self._calls: Batcher[Callable[[], Any], Any] | None = None  # what is not batched, behind the same bound

    def _open(self) -> None:
        engine = self._opening()
        self.engine, self.identity = engine, engine.identity
        self._abilities = frozenset(ours for theirs, ours in _ABLE if getattr(engine.capabilities, theirs))
        if not self._abilities - {"stream"}:
            engine.close()
            raise ConfigError(f"{self.folder} can neither write nor embed", remedy="give a model of texts")

    def _at_folder(self) -> BaseEngine:
        return open_bare(self.folder, EngineRoom(device=resolve_device(self.config.device)))

    def _begin(self) -> None:
        engine = self._opened()
        if self._abilities & {"chat", "completions"}:
            self._writer = writer_for(engine, self)
            self._writer.start()
        if "embeddings" in self._abilities:
            self._vectors = Batcher(
                self.name, lambda texts: list(engine.embed(texts).vectors), self.worker, self.bounds,
                self.watch("embeddings"),
            )  # fmt: skip
            self._vectors.start()
        alone = replace(self.bounds, most=1, wait_s=0.0)
        self._calls = Batcher(self.name, lambda works: [work() for work in works], self.worker, alone)
        self._calls.start()

    async def _alone(self, work: Callable[[], T], call: Call) -> T:
        """The result of `work` in the model's thread, in its turn."""
        assert self._calls is not None  # it has started
        found: list[T] = await self.in_time(self._calls.ask([work]), call)
        return found[0]

    async def _answer(self, call: Call) -> Reply:
        if call.route == "embeddings":
            return await self._embed(call)
        if call.route not in ("chat", "completions") or call.route not in self._abilities:
            raise Refusal(400, f"{self.name} has no {call.route}: ask another model", param="model")
        asked = read("chat" if call.route == "chat" else "complete", call.body, _DEFAULT_TOKENS)
        if asked.echo:
            return await self._echo(call, asked)
        if asked.stream:
            return await stream_reply(call, self.name, asked, await self._write(asked.prompts[0], asked), self._engine)
        answers = await self.in_time(self._all(asked.prompts, asked), call)
        return answer_reply(call, self.name, asked, answers, self._engine)

    async def _write(self, prompt: Prompt, asked: Asked) -> Writing:
        assert self._writer is not None  # it has the ability
        return await self._writer.write(prompt, asked.how)

    async def _all(self, prompts: Sequence[Prompt], asked: Asked) -> list[Generation]:
        """An answer to each prompt; whoever stops waiting frees all slots."""
        if len(prompts) > self.bounds.queue:
            raise Refusal(400, f"{len(prompts)} prompts at once, {self.name} takes {self.bounds.queue}", param="prompt")
        writings: list[Writing] = []
        try:
            for prompt in prompts:
                writings.append(await self._write(prompt, asked))
            return [await one.whole() for one in writings]
        finally:
            for one in writings:
                one.leave()

    async def _echo(self, call: Call, asked: Asked) -> Reply:
        """The log-probabilities of a prompt."""
        engine = self._opened()
        body = await self._alone(lambda: score_json(asked, engine), call)
        read_tokens = body["usage"]["prompt_tokens"]
        return json_reply(
            self.name, body | {"model": self.name}, usage_of(Usage(read_tokens, 0, 1, "tokenizer")), self._engine
        )

    async def _embed(self, call: Call) -> Reply:
        if self._vectors is None:
            raise Refusal(400, f"{self.name} does not embed: ask another model", param="model")
        texts_of(call.body.get("input"))
        asked, engine = read("embed", call.body, 0), self._opened()
        if isinstance(engine, LocalEngine):
            ids, cut = await asyncio.to_thread(engine.embedded_ids, asked.texts)
            vectors = await self.in_time(self._vectors.ask(asked.texts), call)
            found = Embedded(
                _stacked(vectors),
                engine.name,
                Usage(sum(map(len, ids)), 0, 1, "tokenizer"),
                truncated=len(cut),
                cut=cut,
            )
        else:  # which counts its own tokens, per request
            found = await self._alone(lambda: engine.embed(asked.texts), call)
        body = embedding_json(asked, found) | {"model": self.name}
        return json_reply(self.name, body, usage_of(found.usage), self._engine)

    async def _end(self) -> None:
        for part in (self._writer, self._vectors, self._calls):
            if part is not None:
                await part.close()

    def _shut(self) -> None:
        if self.engine is not None:
            self.engine.close()

    @property
    def _engine(self) -> str:
        return self._opened().name

    def _opened(self) -> BaseEngine:
        assert self.engine is not None  # `answer` refuses before
        return self.engine


def writer_for(engine: BaseEngine, model: LocalModel) -> Writer:
    """Slots of the KV cache for our kernel, rounds for any other engine."""
    watch = model.watch("writing")
    if isinstance(engine, LocalEngine) and engine.takes_turns:
        from nacre.engine.native import Native
        from nacre.lifecycle.serve.local.slots import Slots

        assert isinstance(engine, Native)
        return Slots(engine, model.worker, model.bounds, watch)
    return Rounds(engine, model.worker, model.bounds, watch)


def _stacked(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    import numpy as np

    return np.stack(vectors)
