"""Keys: who may use the gateway, and how much of it. A secret is shown once, in the answer to the form that made it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, cast

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nacre.errors import ConfigError, NacreError, ReferenceNotFound
from nacre.lifecycle.serve.budgets import budgets_used
from nacre.lifecycle.serve.contract import Allowance
from nacre.lifecycle.serve.state.keys import FormTaken, Issued, Key, KeyStore
from nacre.lifecycle.serve.state.limits_unshared import refuse_limits
from nacre.lifecycle.serve.watch.rules import BudgetUse
from nacre.web.areas.chat import ledger_of
from nacre.web.areas.frame import form_of, keep_session
from nacre.web.contract import Page, View, page_of, viewer_of
from nacre.web.rendering import Links, render
from nacre.web.words import Words

GRACES: Mapping[str, float] = {"0": 0.0, "1h": 3600.0, "24h": 86_400.0, "7d": 604_800.0}
_WHOLE = ("requests_per_minute", "tokens_per_minute", "concurrent", "tokens")
_FIELDS = ("name", "models", "money", "per", "expires", "admin", *_WHOLE)


@dataclass(frozen=True)
class Row:
    """A key in the list. `last` is when it was last used; `budgets` what it used of each budget in its period."""

    key: Key
    state: str
    last: float | None
    budgets: Sequence[BudgetUse]


async def keys(request: Request) -> Response:
    """Every key: the active ones first, then those that have ended."""
    page = page_of(request)
    rows = await _rows(page)
    rows.sort(key=lambda row: (row.state != "active", row.key.caller.name.lower(), row.key.created_at))
    return await _drawn(request, "keys.html", rows=rows, is_first=_is_first(page))


async def key(request: Request) -> Response:
    """One key, and what can be done with it."""
    row = await _row(request)
    return await _drawn(request, "key.html", row=row, graces=tuple(GRACES), token=secrets.token_urlsafe(16))


async def new(request: Request) -> Response:
    """The form for a new key."""
    first = {"admin": "on"} if _is_first(page_of(request)) else {}
    return await _form(request, {"models": "*", **first}, None)


async def create(request: Request) -> Response:
    """Makes a key and shows its secret, this once; what cannot be meant is told at the form, its values kept."""
    page, words, form = page_of(request), viewer_of(request).words, await form_of(request)
    is_first = _is_first(page)
    token = form.get("token", "")
    if not token:
        return await _drawn(request, "key_sent.html", status=409)
    try:
        wanted = _read(form, words)
        refuse_limits(wanted["allowance"], page.gateway.config.state, page.gateway.config.listen.workers)
        if is_first and "admin" not in form:
            raise ConfigError(words("keys_first_is_admin"), remedy=words("keys_first_is_admin_remedy"))
        issued = await to_thread.run_sync(partial(store_of(page).create, **wanted, form=token))
    except FormTaken:
        return await _drawn(request, "key_sent.html", status=409)
    except ConfigError as error:
        return await _form(request, form, error)
    return await _made(request, issued, signs_in=is_first)


async def rotate(request: Request) -> Response:
    """Gives a key a new secret and shows it, this once."""
    page, form = page_of(request), await form_of(request)
    token, identity = form.get("token", ""), request.path_params["id"]
    grace = GRACES.get(form.get("grace", "0"), 0.0)
    try:
        if not token:
            raise FormTaken
        issued = await to_thread.run_sync(partial(store_of(page).rotate, identity, grace_s=grace, form=token))
    except FormTaken:
        return await _drawn(request, "key_sent.html", status=409)
    return await _made(request, issued, signs_in=identity == viewer_of(request).caller.id)


async def confirm_revoke(request: Request) -> Response:
    """What revoking a key means, before it is done."""
    row, rows = await _row(request), await _rows(page_of(request))
    admins = [one for one in rows if one.state == "active" and one.key.caller.is_admin]
    is_last = row.key.caller.is_admin and len(admins) == 1
    return await _drawn(
        request, "key_revoke.html", row=row, is_last_admin=is_last,
        is_own=row.key.caller.id == viewer_of(request).caller.id,
    )  # fmt: skip


async def revoke(request: Request) -> Response:
    """Ends a key at once."""
    page = page_of(request)
    await to_thread.run_sync(store_of(page).revoke, request.path_params["id"])
    return RedirectResponse(Links(page.prefix)("/keys"), 303)


def store_of(page: Page) -> KeyStore:
    """The gateway's keys, which can be changed."""
    held = page.gateway.parts.keys
    assert isinstance(held, KeyStore)  # `assemble` makes no other
    return held


def _is_first(page: Page) -> bool:
    """Whether the next key is the first, after which everybody is asked for one."""
    return not page.gateway.wants_key and not page.gateway.parts.keys and page.gateway.config.keys.required is None


async def _rows(page: Page) -> list[Row]:
    used = await budgets_used(store_of(page), ledger_of(page))

    def read() -> list[Row]:
        now, ledger = time.time(), ledger_of(page)
        rows = []
        for one in store_of(page).list():
            last = ledger.recent(1, one.caller.id)
            budgets = [budget for budget in used if budget.key == one.caller.id]
            rows.append(Row(one, one.state(now), last[0].at if last else None, budgets))
        return rows

    return await to_thread.run_sync(read)


async def _row(request: Request) -> Row:
    identity = request.path_params["id"]
    for row in await _rows(page_of(request)):
        if row.key.caller.id == identity:
            return row
    raise ReferenceNotFound(viewer_of(request).words("keys_unknown"), remedy="nacre serve keys list")


async def _form(request: Request, values: Mapping[str, str], error: NacreError | None) -> Response:
    known = {name: values.get(name, "") for name in _FIELDS}
    return await _drawn(
        request, "key_new.html", values=known, error=error, is_first=_is_first(page_of(request)),
        token=secrets.token_urlsafe(16), models=page_of(request).gateway.config.names, whole=_WHOLE,
        status=200 if error is None else 400,
    )  # fmt: skip


async def _made(request: Request, issued: Issued, *, signs_in: bool) -> Response:
    """The page with the secret. Who made the first key, or changed its own, is signed in with it."""
    page = page_of(request)
    cookie = page.sessions.begin(issued.secret) if signs_in and page.gateway.wants_key else None
    response = await _drawn(request, "key_made.html", issued=issued, is_signed_in=cookie is not None)
    if cookie is not None:
        keep_session(response, request, cookie)
    return response


async def _drawn(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    return await to_thread.run_sync(partial(render, request, template, status=status, **values))


def _read(form: Mapping[str, str], words: Words) -> dict[str, Any]:
    """The arguments of `KeyStore.create` in a form; raises ConfigError naming the field that cannot be meant."""
    limits: dict[str, Any] = {name: _number(form, name, words, whole=True) for name in _WHOLE}
    per = cast(Literal["life", "day", "month"], form.get("per") or "life")  # `create` refuses another
    allowance = Allowance(**limits, money=_number(form, "money", words, whole=False), per=per)
    return {
        "name": form.get("name", "").strip(),
        "models": tuple(one.strip() for one in form.get("models", "").replace("\n", ",").split(",") if one.strip()),
        "allowance": allowance,
        "expires_at": _expiry(form.get("expires", ""), words),
        "is_admin": "admin" in form,
    }


def _number(form: Mapping[str, str], name: str, words: Words, *, whole: bool) -> float | int | None:
    text = form.get(name, "").strip().replace(",", "")
    if not text:
        return None
    try:
        return int(text) if whole else float(text)
    except ValueError:
        what = words("keys_no_whole_number" if whole else "keys_no_number", field=words(f"keys_{name}"))
        raise ConfigError(what, remedy=words("keys_no_number_remedy")) from None


def _expiry(day: str, words: Words) -> float | None:
    """The end of a day (UTC)."""
    if not day.strip():
        return None
    try:
        last = datetime.fromisoformat(day.strip()).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(words("keys_no_day"), remedy=words("keys_no_day_remedy")) from None
    return (last + timedelta(days=1)).timestamp()


VIEWS = (
    View("/keys", keys),
    View("/keys/new", new),
    View("/keys/new", create, methods=("POST",)),
    View("/keys/{id:str}", key),
    View("/keys/{id:str}/rotate", rotate, methods=("POST",)),
    View("/keys/{id:str}/revoke", confirm_revoke),
    View("/keys/{id:str}/revoke", revoke, methods=("POST",)),
)
