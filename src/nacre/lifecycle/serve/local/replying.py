"""Replies of models of ours, in OpenAI's shapes: whole, or as server-sent events while the text is being written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson

from nacre.engine import protocol
from nacre.engine.loopback_wire import Asked, answer_json, chunk_json
from nacre.engine.protocol import Generation
from nacre.lifecycle.serve.contract import Call, Json, Refusal, Reply, Usage
from nacre.lifecycle.serve.local.worker import left_s, too_late
from nacre.lifecycle.serve.local.writing import Writing
from nacre.lifecycle.serve.wire import error_event, header_value

_DONE = b"data: [DONE]\n\n"


def usage_of(used: protocol.Usage) -> Usage:
    """What an engine counted, in the gateway's terms."""
    return Usage(used.prompt_tokens, used.completion_tokens, used.counted_by)


def headers_for(engine: str) -> dict[str, str]:
    """Says which artifact answered, whatever the name under which it is served."""
    return {"x-nacre-engine": header_value(engine)}


def json_reply(model: str, body: Json, usage: Usage, engine: str) -> Reply:
    """A whole answer."""
    data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = {"content-type": "application/json", **headers_for(engine)}
    return Reply(model, body=data, usage=usage, headers=headers)


def answer_reply(call: Call, model: str, asked: Asked, answers: Sequence[Generation], engine: str) -> Reply:
    """The answers to all prompts of a call."""
    total = protocol.Usage()
    for one in answers:
        total = total + one.usage
    body = answer_json(asked, list(answers), _id(call, asked), int(time.time()))
    return json_reply(model, body | {"model": model}, usage_of(total), engine)


def _id(call: Call, asked: Asked) -> str:
    return f"{'chatcmpl' if asked.kind == 'chat' else 'cmpl'}-{call.id}"


class Events:
    """An answer as server-sent events. Whoever stops listening closes it, which frees its slot.

    The first piece is there before the reply is made, so that a failure before it is a refusal.
    """

    def __init__(self, call: Call, model: str, asked: Asked, writing: Writing, first: str | Generation) -> None:
        self.call, self.model, self.asked, self.writing = call, model, asked, writing
        self.reply: Reply | None = None
        self._first: str | Generation | None = first
        self._id, self._when, self._said_role = _id(call, asked), int(time.time()), False
        self._over = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        try:
            found = self._first if self._first is not None else await next_of(self.writing, self.call, self.model)
        except Refusal as refusal:
            await self.aclose()
            if self.reply is not None:
                self.reply.truncated = True
            return error_event(refusal)
        self._first = None
        return self._piece(found) if isinstance(found, str) else self._end(found)

    async def aclose(self) -> None:
        """Nobody listens any more, or all was said."""
        self._over = True
        self.writing.leave()

    def _piece(self, text: str, last: Generation | None = None) -> bytes:
        chunk = chunk_json(self.asked, self._id, self._when, text, last) | {"model": self.model}
        if self.asked.kind == "chat" and not self._said_role:
            self._said_role = True
            choice: dict[str, Any] = chunk["choices"][0]
            choice["delta"] = {"role": "assistant", "content": "", **choice["delta"]}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def _end(self, answer: Generation) -> bytes:
        out = self._piece("", answer)
        if self.asked.stream_usage:
            chunk = chunk_json(self.asked, self._id, self._when, None, answer) | {"model": self.model}
            out += b"data: " + orjson.dumps(chunk) + b"\n\n"
        if self.reply is not None:
            self.reply.usage = usage_of(answer.usage)
        self._over = True
        self.writing.leave()
        return out + _DONE


async def next_of(writing: Writing, call: Call, model: str) -> str | Generation:
    """What is written next; raises Refusal where nothing comes before the call's deadline."""
    try:
        async with asyncio.timeout(left_s(call.deadline)):
            return await writing.next()
    except TimeoutError:
        writing.leave()
        raise too_late(model) from None


async def stream_reply(call: Call, model: str, asked: Asked, writing: Writing, engine: str) -> Reply:
    """A reply whose events come as the text is written; raises Refusal where nothing was written."""
    try:
        first = await next_of(writing, call, model)
    except BaseException:
        writing.leave()
        raise
    events = Events(call, model, asked, writing, first)
    headers = {"content-type": "text/event-stream; charset=utf-8", **headers_for(engine)}
    events.reply = Reply(model, events=events, headers=headers)
    return events.reply
