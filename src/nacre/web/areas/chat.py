"""The playground: any model, rung or index that the viewer may ask for, alone or two side by side.

The browser posts here what it would post to the gateway. The request is handed to the gateway's application as it
came, with the viewer as its caller: keys, limits, masking and ledger hold as for every other request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from nacre.errors import NacreError
from nacre.lifecycle.serve.contract import ASGI, CALLER, ROUTES, Caller, Entry
from nacre.lifecycle.serve.local.offers import Offer, offer_of
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lineage.store import Store
from nacre.web.contract import Page, View, page_of, viewer_of
from nacre.web.rendering import Links, render
from nacre.web.words import rows

TIERS = ("baseline", "relay", "prompt", "retrieval", "tune", "pretrain")
_PATHS = {route: path for path, route in ROUTES.items() if route != "embeddings"}
_PASSED = (b"content-length", b"content-type", b"content-encoding", b"transfer-encoding", b"cache-control")
_SCRIPT = "chat_js_"  # begins the names of the words that the script says
Group = Literal["rungs", "models", "classifiers", "indexes", "upstreams", "routes"]
_GROUPS: tuple[Group, ...] = ("rungs", "models", "classifiers", "indexes", "upstreams", "routes")
_GROUP_OF: dict[str, Group] = {"model": "models", "classifier": "classifiers", "index": "indexes"}


@dataclass(frozen=True)
class Choice:
    """One line of the list of models. `route` is how it is asked; `ref` the artifact it is, where it is one.

    `one_question`: it answers a text alone and decides itself how it writes, so that there is nothing to set.
    """

    name: str
    label: str
    group: Group
    heading: str
    route: str
    streams: bool
    one_question: bool
    ref: str = ""
    about: str = ""


def chat(request: Request) -> Response:
    """The page of the chat. `?model=` and `?beside=` choose what is asked."""
    page, viewer = page_of(request), viewer_of(request)
    found = choices(page, viewer.caller)
    words, names = viewer.words, {one.name for one in found}
    asked = {place: request.query_params.get(place, "") for place in ("model", "beside")}
    said = {name.removeprefix(_SCRIPT): words(name) for name in rows() if name.startswith(_SCRIPT)}
    said |= {"send": Links(page.prefix)("/chat/send"), "entry": Links(page.prefix)("/chat/entry")}
    said |= {"sign_in": Links(page.prefix)("/sign-in", back="/chat")}
    return render(
        request, "chat.html", groups=list(_grouped(found)), count=len(found),
        words_json=json.dumps(said, ensure_ascii=False),
        chosen=asked["model"] if asked["model"] in names else "",
        beside=asked["beside"] if asked["beside"] in names else "",
        lost=[name for name in asked.values() if name and name not in names], is_admin=viewer.is_admin,
    )  # fmt: skip


async def send(request: Request) -> Response:
    """Hands the request on to the gateway, as the caller who is signed in, and passes its answer through."""
    path = _PATHS.get(request.path_params["route"])
    if path is None:
        return JSONResponse({"error": {"message": viewer_of(request).words("not_found")}}, 404)
    return _Passed(page_of(request).inner, path, viewer_of(request).caller)


def entry(request: Request) -> Response:
    """What the ledger has of one answer, as JSON; of somebody else's only to an administrator."""
    viewer = viewer_of(request)
    found = ledger_of(page_of(request)).entry(request.path_params["id"])
    if found is None or not (viewer.is_admin or found.key == viewer.caller.id):
        return JSONResponse({"error": {"message": viewer.words("not_found")}}, 404)
    return JSONResponse(_shown(found))


def ledger_of(page: Page) -> StoredLedger:
    """The gateway's ledger, with what only the stored one can tell."""
    ledger = page.gateway.parts.ledger
    assert isinstance(ledger, StoredLedger)  # `assemble` makes no other
    return ledger


def choices(page: Page, caller: Caller) -> list[Choice]:
    """What a caller may ask for here, in the order of the list: rungs by task and tier, then the other kinds."""
    table, config = page.gateway.table, page.gateway.config
    found: list[Choice] = []
    for name in table.visible(caller):
        model = config.models.get(name)
        if model is not None and model.local is not None:
            offer, ref = _offer(page.store, model.local.ref)
        else:
            offer, ref = None, ""
        abilities = table.backends[table.owners(name)[0]].abilities
        route = next((one for one in ("chat", "completions", "classify", "search") if one in abilities), None)
        if route is not None:
            group: Group = "routes" if model is None else "upstreams" if offer is None else "rungs"
            if offer is not None and offer.kind != "rung":
                group = _GROUP_OF[offer.kind]
            found.append(_choice(name, group, route, "stream" in abilities, offer, ref))
    return sorted(found, key=lambda one: (_GROUPS.index(one.group), one.heading, _tier_place(one.label), one.name))


def _choice(name: str, group: Group, route: str, streams: bool, offer: Offer | None, ref: str) -> Choice:
    if offer is None or offer.kind != "rung":
        return Choice(name, name, group, "", route, streams, route in ("classify", "search"), ref)
    return Choice(name, offer.tier, group, offer.task, route, streams, True, ref, offer.solver)


def _tier_place(label: str) -> int:
    return TIERS.index(label) if label in TIERS else len(TIERS)


def _grouped(found: list[Choice]) -> Iterator[tuple[str, str, list[Choice]]]:
    """(group, heading, choices), in order. Rungs of one task that share a tier are told apart by their names."""
    for group, heading in dict.fromkeys((one.group, one.heading) for one in found):
        yield group, heading, [one for one in found if (one.group, one.heading) == (group, heading)]


def _offer(store: Store, ref: str) -> tuple[Offer | None, str]:
    """What a local model is, and the artifact it is ("" for a folder elsewhere); nothing where it cannot be told."""
    try:
        found = store.resolve(ref)
        return _read_offer(found.path), found.ref if found.record is not None else ""
    except (NacreError, ValueError):
        return None, ""


@lru_cache(512)
def _read_offer(folder: Path) -> Offer | None:
    """An artifact never changes, so that it is read once."""
    return offer_of(folder)


def _shown(found: Entry) -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if name != "key"}


class _Passed(Response):
    """The gateway's answer to the request that came here, byte by byte; its client leaving is the gateway's to see."""

    def __init__(self, inner: ASGI, path: str, caller: Caller) -> None:
        super().__init__()
        self._inner, self._path, self._caller = inner, path, caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        onward = {
            "type": "http", "asgi": scope["asgi"], "http_version": scope["http_version"], "method": "POST",
            "scheme": scope["scheme"], "path": self._path, "raw_path": self._path.encode(), "query_string": b"",
            "root_path": "", "client": scope.get("client"), "server": scope.get("server"), CALLER: self._caller,
            "headers": [pair for pair in scope["headers"] if pair[0] in _PASSED],
        }  # fmt: skip

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                theirs = {name for name, _ in message["headers"]}
                ours = [(name, value) for name, value in self.raw_headers if name not in theirs | {b"content-length"}]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        await self._inner(onward, receive, guarded)  # type: ignore[arg-type]


VIEWS = (
    View("/chat", chat, needs="key"),
    View("/chat/send/{route:str}", send, needs="key", methods=("POST",)),
    View("/chat/entry/{id:str}", entry, needs="key"),
)
