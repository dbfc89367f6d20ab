"""The page beside a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nacre.lifecycle.serve.contract import ASGI, Receive, Scope, Send
from nacre.lifecycle.serve.pipeline import Gateway
from nacre.lifecycle.serve.state.database import state_folder
from nacre.recipe.references import open_store
from nacre.web.contract import PREFIX, Page
from nacre.web.sessions import Sessions, signing_secret


def open_page(gateway: Gateway, inner: ASGI, store: str | None = None, *, ahead: bool = False) -> dict[str, ASGI]:
    """The page under its prefix; `inner` answers the chat's requests, `store` is the folder that is looked at.

    What its areas import, a second of work and 20 MiB, waits for the first request; `ahead` begins it at once, beside
    whatever else is done. Raises NacreError where it could never answer.
    """
    page = Page(gateway, inner, open_store(store), Sessions(gateway.parts.keys, signing_secret(state_folder(store))))
    opening = Opening(lambda: _application(page))
    if ahead:
        opening.begin()
    return {PREFIX: opening}


def _application(page: Page) -> ASGI:
    from nacre.web.app import application

    return application(page)


class Opening:
    """An application that is made in a thread when it is first needed, once."""

    def __init__(self, make: Callable[[], ASGI]) -> None:
        self._make = make
        self._made: asyncio.Task[ASGI] | None = None

    def begin(self) -> asyncio.Task[ASGI]:
        """Begins to make it, where that has not begun."""
        if self._made is None:
            self._made = asyncio.create_task(asyncio.to_thread(self._make))
        return self._made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        application = await asyncio.shield(self.begin())
        await application(scope, receive, send)
