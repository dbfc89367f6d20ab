"""The page in a test: a small gateway that lends it keys, a browserless client, and artifacts put into a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from starlette.testclient import TestClient

from nacre.lifecycle.serve.contract import ASGI, Caller
from nacre.lifecycle.serve.pipeline import Gateway
from nacre.lineage.record import Record, fingerprint
from nacre.lineage.store import Resolved, Store
from nacre.lineage.workspace import begin, publish
from nacre.recipe.references import open_store
from nacre.web.app import application
from nacre.web.contract import Page
from nacre.web.sessions import Sessions

HOST = "http://127.0.0.1:8400"
HERE = {"origin": HOST}  # what a browser says with a form of the page itself
HOSTILE = "<script>window.__hit=1</script>"
ADMIN = Caller("k-admin", "Ada", is_admin=True)


@dataclass
class HeldKeys:
    """Keys of a test by their secret. `bool` says whether any are kept."""

    held: dict[str, Caller] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.held)

    def find(self, secret: str) -> Caller | None:
        return self.held.get(secret)

    def holder(self, caller_id: str) -> tuple[Caller, str] | None:
        return next(((one, "mark") for one in self.held.values() if one.id == caller_id), None)


def page_client(folder: Path, keys: Mapping[str, Caller] | None = None, *, inner: Any = None) -> TestClient:
    """A client of the page over the store at `folder`. With `keys` (secret -> holder) one has to sign in.

    `client.app_state` is the `Page`. Pass your own gateway's application as `inner` to answer the chat.
    """
    held = HeldKeys(dict(keys or {}))
    gateway = cast(Gateway, SimpleNamespace(wants_key=bool(held), parts=SimpleNamespace(keys=held)))
    sessions = Sessions(cast(Any, held), b"s" * 32)
    page = Page(gateway, cast(ASGI, inner), open_store(str(folder)), sessions)
    client = TestClient(cast(Any, application(page)), base_url=HOST, follow_redirects=False)
    client.app_state["page"] = page
    return client


def put(store: Store, name: str, files: Mapping[str, str | bytes], **facts: Any) -> Resolved:
    """A complete artifact with its record, as a stage publishes it. `facts` are fields of the record."""
    facts = {"kind": "model", "stage": "test.made"} | facts
    record = Record(name=name, version=0, digest="", **facts)
    value = fingerprint(record.stage or "", record.revision, record.config, record.seed, record.parents)
    space = begin(store, name, value)
    for path, content in files.items():
        file = space.out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    made = publish(store, space, replace(record, fingerprint=value))
    return store.get(made.name, made.version)
