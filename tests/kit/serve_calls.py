"""Calls to a backend as the gateway makes them, and the events of their streams."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from nacre.lifecycle.serve.contract import Call, Caller, Reply, Route

_numbers = itertools.count(1)
ALICE, BOB = Caller("alice", "Alice"), Caller("bob", "Bob")


def call_of(
    route: Route, body: dict[str, Any], *, caller: Caller = ALICE, seconds: float = 60.0, **headers: str
) -> Call:
    """A call that was read just now."""
    now = time.monotonic()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Call(
        f"r{next(_numbers)}", route, caller, body.get("model", "m"), body, json.dumps(body).encode(),
        bool(body.get("stream")), now, now + seconds, named,
    )  # fmt: skip


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A chat of one message, written greedily."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


async def all_events(reply: Reply) -> bytes:
    """The bytes of a stream."""
    assert reply.events is not None
    return b"".join([chunk async for chunk in reply.events])


def chunks_of(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, without its end mark."""
    lines = [line[6:] for line in data.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(data: bytes) -> str:
    """What a stream of a chat or a completion says."""
    said = [choice for chunk in chunks_of(data) for choice in chunk["choices"]]
    return "".join(one["delta"].get("content", "") if "delta" in one else one["text"] for one in said)


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in an event loop of its own, for a minute at most, and leaves no task behind."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        async def whole() -> None:
            async with asyncio.timeout(120):
                await test(*args, **fixtures)
            left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert not left, left

        asyncio.run(whole())

    return run
