"""A rung or a classifier behind the gateway: `/v1/classify`, chat where it writes answers, search where it ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from nacre.engine import protocol
from nacre.engine.loopback_wire import Asked, answer_json, chunk_json
from nacre.engine.openai_wire import Malformed, messages_of
from nacre.engine.protocol import Generation
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.contract import Call, Json, Refusal, Reply
from nacre.lifecycle.serve.local.batcher import Batcher
from nacre.lifecycle.serve.local.model import LocalModel, Queued
from nacre.lifecycle.serve.local.offers import RUNG_ABILITIES
from nacre.lifecycle.serve.local.reading import count_of, only_known, texts_of
from nacre.lifecycle.serve.local.replying import headers_for, json_reply, usage_of
from nacre.lifecycle.serve.local.solved import Said, Solver
from nacre.lifecycle.serve.local.worker import Worker

_CHAT = frozenset({"model", "messages", "stream", "stream_options", "temperature", "seed"})


class SolvedModel(LocalModel):
    """Something that answers one kind of question. Its answers are batched."""

    def __init__(
        self, name: str, opening: Callable[[], Solver], config: LocalConfig, queued: Queued | None = None,
        worker: Worker | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, config, queued, worker)
        self._opening = opening
        self._solver: Solver | None = None
        self._batches: Batcher[str, Said] | None = None

    def _open(self) -> None:
        self._solver = solver = self._opening()
        self.identity, self._abilities = solver.identity, RUNG_ABILITIES[solver.kind]

    def _begin(self) -> None:
        solver = self._opened()
        self._batches = Batcher(self.name, solver.answer, self.worker, self.bounds, self.watch("answers"))
        self._batches.start()

    async def _answer(self, call: Call) -> Reply:
        if call.route not in self._abilities:
            raise Refusal(400, f"{self.name} has no {call.route}: ask another model", param="model")
        answers = {"classify": self._classify, "chat": self._chat, "search": self._search}
        return await answers[call.route](call)

    async def _ask(self, texts: Sequence[str], call: Call) -> list[Said]:
        assert self._batches is not None  # it has started
        return await self.in_time(self._batches.ask(texts), call)

    async def _classify(self, call: Call) -> Reply:
        body = only_known(call.body, frozenset({"model", "input", "top_k"}))
        texts = texts_of(body.get("input"))
        top = count_of(body, "top_k", 5, 1000)
        said = await self._ask(texts, call)
        data = [_classified(index, one, top) for index, one in enumerate(said)]
        return self._reply({"object": "list", "data": data, "model": self.name}, said)

    async def _search(self, call: Call) -> Reply:
        body = only_known(call.body, frozenset({"model", "query", "limit"}))
        query = texts_of(body.get("query"), "query")[0]
        said = (await self._ask([query], call))[0]
        hits = _hits(said, count_of(body, "limit", 10, 1000))
        return self._reply({"object": "list", "data": hits, "model": self.name}, [said])

    async def _chat(self, call: Call) -> Reply:
        body = only_known(call.body, _CHAT)
        if body.get("temperature") not in (None, 0):
            raise Refusal(
                400, f"{self.name} decides itself how it writes: leave temperature out, or give 0", param="temperature"
            )
        said = (await self._ask([_question(body, self.name)], call))[0]
        if said.value is None:
            raise Refusal(502, f"{self.name} found no answer", kind="upstream_error", code="no_answer")
        answer = Generation(str(said.value), "end", self.name, said.usage)
        options = body.get("stream_options") or {}
        asked = Asked("chat", self.name, stream=call.stream, stream_usage=bool(options.get("include_usage")))
        extra: Json = {"citations": [dict(one) for one in said.citations]} if said.citations else {}
        name, when = f"chatcmpl-{call.id}", int(time.time())
        if call.stream:
            return self._streamed(asked, answer, name, when, extra)
        return self._reply(answer_json(asked, [answer], name, when) | extra, [said], counted=True)

    def _streamed(self, asked: Asked, answer: Generation, name: str, when: int, extra: Json) -> Reply:
        """The whole answer as one event sequence: it is not known piece by piece."""
        chunks = [chunk_json(asked, name, when, answer.text), chunk_json(asked, name, when, "", answer) | extra]
        chunks[0]["choices"][0]["delta"] = {"role": "assistant", "content": answer.text}
        if asked.stream_usage:
            chunks.append(chunk_json(asked, name, when, None, answer))
        data = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
        headers = {"content-type": "text/event-stream; charset=utf-8", **headers_for(self._opened().title)}
        return Reply(self.name, events=_Once(data), usage=usage_of(answer.usage), headers=headers)

    def _reply(self, body: Json, said: Sequence[Said], *, counted: bool = False) -> Reply:
        total = protocol.Usage()
        for one in said:
            total = total + one.usage
        if not counted:
            body = body | {"usage": {"prompt_tokens": total.prompt_tokens, "total_tokens": total.prompt_tokens}}
        return json_reply(self.name, body, usage_of(total), self._opened().title)

    async def _end(self) -> None:
        if self._batches is not None:
            await self._batches.close()

    def _shut(self) -> None:
        if self._solver is not None:
            self._solver.close()

    def _opened(self) -> Solver:
        assert self._solver is not None  # it has started
        return self._solver


class _Once:
    """An event sequence that is there already."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        data, self._data = self._data, None
        if data is None:
            raise StopAsyncIteration
        return data


def _classified(index: int, one: Said, top: int) -> Json:
    scores = [{"label": label, "score": float(score)} for label, score in list(one.scores.items())[:top]]
    found: Json = {"index": index, "label": one.value, "scores": scores}
    return found | ({"problem": one.problem} if one.value is None else {}) | _cited(one)


def _cited(one: Said) -> Json:
    return {"citations": [dict(citation) for citation in one.citations]} if one.citations else {}


def _hits(said: Said, limit: int) -> list[Json]:
    """Ranked documents: with their passages where the rung cites them, else their ids and scores alone."""
    cited: dict[str, Any] = {}
    for one in said.citations:
        cited.setdefault(str(one["source"]), one)
    hits = []
    for index, source in enumerate(list(said.value or [])[:limit]):
        found = cited.get(str(source), {})
        hits.append({
            "index": index, "source": source, "text": found.get("text"), "start": found.get("start"),
            "end": found.get("end"), "score": found.get("score", said.scores.get(str(source))),
        })  # fmt: skip
    return hits


def _question(body: Json, name: str) -> str:
    """The one text that a rung answers; raises Refusal where a conversation is given."""
    try:
        messages = messages_of(body.get("messages"))
    except Malformed as error:
        raise Refusal(400, str(error), param="messages") from error
    if len(messages) != 1 or messages[0].role != "user":
        raise Refusal(
            400, f"{name} answers one text at a time and has its own instruction: send one user message",
            param="messages",
        )  # fmt: skip
    return texts_of([messages[0].content], "messages")[0]
