"""The page beside a running gateway."""

from __future__ import annotations

from nacre.lifecycle.serve.contract import ASGI
from nacre.lifecycle.serve.pipeline import Gateway
from nacre.lifecycle.serve.state.database import state_folder
from nacre.recipe.references import open_store
from nacre.web.app import application
from nacre.web.contract import PREFIX, Page
from nacre.web.sessions import Sessions, signing_secret


def open_page(gateway: Gateway, inner: ASGI, store: str | None = None) -> dict[str, ASGI]:
    """The page under its prefix; `inner` answers the chat's requests, `store` is the folder that is looked at."""
    sessions = Sessions(gateway.parts.keys, signing_secret(state_folder(store)))
    return {PREFIX: application(Page(gateway, inner, open_store(store), sessions))}
