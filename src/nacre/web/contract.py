"""What the areas of the page share: the page itself, who looks at it, and how a view is declared.

A view is a plain function `(Request) -> Response`; Starlette runs it in a thread, so it may read files and wait for a
database. An asynchronous function runs in the event loop and must do neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.responses import Response

from nacre.lifecycle.serve.contract import ASGI, Caller
from nacre.web.words import Words

if TYPE_CHECKING:
    from nacre.lifecycle.serve.pipeline import Gateway
    from nacre.lineage.store import Store
    from nacre.web.sessions import Sessions

Needs = Literal["admin", "key", "nothing"]
Theme = Literal["auto", "light", "dark"]
Function = Callable[[Request], Response] | Callable[[Request], Awaitable[Response]]
PREFIX = "/page"


@dataclass(frozen=True)
class Page:
    """What a view may use. `inner` is the gateway's application, to which the chat's requests go."""

    gateway: Gateway
    inner: ASGI
    store: Store
    sessions: Sessions
    prefix: str = PREFIX


@dataclass(frozen=True)
class Viewer:
    """Whoever looks. `is_open` says that no key is asked for here, so that there is nothing to sign out of."""

    caller: Caller
    words: Words
    theme: Theme = "auto"
    is_open: bool = False

    @property
    def is_admin(self) -> bool:
        return self.is_open or self.caller.is_admin


@dataclass(frozen=True)
class View:
    """One path under the page's prefix, in Starlette's form (`/artifacts/{ref:path}`), and who may see it.

    `admin`: an administrator's key, or anyone where no keys are asked for. `key`: any good key.
    """

    path: str
    function: Function
    needs: Needs = "admin"
    methods: tuple[str, ...] = ("GET",)


def page_of(request: Request) -> Page:
    """The page that a request is for."""
    page: Page = request.app.state.page
    return page


def viewer_of(request: Request) -> Viewer:
    """Who asks; set before any view runs."""
    viewer: Viewer = request.state.viewer
    return viewer
