"""The page is made once, when it is first asked for, beside requests that need none of it."""

from __future__ import annotations

import asyncio

from nacre.lifecycle.serve.contract import ASGI, Receive, Scope, Send
from nacre.web.opening import Opening


def test_made_once_for_all_who_ask_together_and_a_caller_that_leaves_ends_nothing() -> None:
    made, answered = [], []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        answered.append(scope["path"])

    def make() -> ASGI:
        made.append(True)
        return application

    async def run() -> None:
        opening = Opening(make)
        assert not made
        leaves = asyncio.create_task(opening({"path": "/a"}, *_nobody()))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.gather(*(opening({"path": path}, *_nobody()) for path in ("/b", "/c")))
        await asyncio.gather(leaves, return_exceptions=True)

    asyncio.run(run())
    assert made == [True]
    assert sorted(answered) == ["/b", "/c"]


def _nobody() -> tuple[Receive, Send]:
    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        del message

    return receive, send
