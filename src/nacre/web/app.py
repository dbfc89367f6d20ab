"""The page as an ASGI application: who may see what, headers that keep a browser safe, errors as pages."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import cast

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from nacre.errors import NacreError, ReferenceNotFound
from nacre.lifecycle.serve.contract import ANYONE, ASGI, Refusal
from nacre.web import catalogue
from nacre.web.contract import Page, Theme, View, Viewer, page_of, viewer_of
from nacre.web.origins import is_from_here, names_this_machine
from nacre.web.rendering import Links, render
from nacre.web.sessions import COOKIE
from nacre.web.words import LANGUAGES, Language, Words, language_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_log = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]


def application(page: Page) -> ASGI:
    """The page, to be mounted under `page.prefix`."""
    routes = [
        Mount("/static", _Kept(packages=[("nacre.web", "static")])),
        *(Route(view.path, _endpoint(view), methods=list(view.methods)) for view in catalogue.views()),
        Route("/{rest:path}", _endpoint(View("", _missing, needs="nothing"))),
    ]
    made = Starlette(routes=[Mount(page.prefix, routes=routes)])
    made.state.page = page
    return cast(ASGI, made)


class _Kept(StaticFiles):
    """Files of the package. Their addresses change with their bytes, so a browser may keep them."""

    def file_response(self, *args: object, **options: object) -> Response:
        response = super().file_response(*args, **options)  # type: ignore[arg-type]
        response.headers.update(HEADERS | {"cache-control": "public, max-age=31536000, immutable"})
        return response


def _endpoint(view: View) -> Endpoint:
    """A view behind its guard; the response with our headers, whatever happens."""

    async def answer(request: Request) -> Response:
        request.state.viewer = _viewer(request)
        try:
            response = await _guarded(view, request)
        except Refusal as refusal:
            response = _error(request, refusal.status, refusal.message, "")
        except NacreError as error:
            status = 404 if isinstance(error, ReferenceNotFound) else 400 if error.exit_code == 2 else 500
            response = await to_thread.run_sync(_error, request, status, error.message, error.remedy)
        except Exception:  # noqa: BLE001 - the outermost frame of a request
            number, words = secrets.token_hex(6), viewer_of(request).words
            _log.exception("page %s failed", number)
            response = _error(request, 500, words("fault", number=number), words("fault_remedy"))
        for name, value in (HEADERS | {"content-security-policy": POLICY}).items():
            response.headers.setdefault(name, value)
        return response

    return answer


async def _guarded(view: View, request: Request) -> Response:
    page, words = page_of(request), viewer_of(request).words
    is_open = not page.gateway.wants_key
    if (is_open and not names_this_machine(request)) or (request.method != "GET" and not is_from_here(request)):
        return _error(request, 403, words("foreign_request"), words("foreign_request_remedy"))
    if view.needs != "nothing":
        viewer = await to_thread.run_sync(_signed_in, request)
        if viewer is None:
            back = request.url.path.removeprefix(page.prefix) if request.method == "GET" else "/"
            return RedirectResponse(Links(page.prefix)("/sign-in", back=back), 303)
        request.state.viewer = viewer
        if view.needs == "admin" and not viewer.is_admin:
            return _error(request, 403, words("admin_needed"), words("admin_needed_remedy"))
    if iscoroutinefunction(view.function):
        return await cast(Endpoint, view.function)(request)
    return await to_thread.run_sync(cast(Callable[[Request], Response], view.function), request)


def _viewer(request: Request) -> Viewer:
    """Whoever asks, not yet asked for a key: language and theme as chosen, else as the browser says."""
    language = request.cookies.get("nacre_language", "")
    if language not in LANGUAGES:
        language = language_of(request.headers.get("accept-language", ""))
    theme = request.cookies.get("nacre_theme", "auto")
    theme = theme if theme in ("light", "dark") else "auto"
    is_open = not page_of(request).gateway.wants_key
    return Viewer(ANYONE, Words(cast(Language, language)), cast(Theme, theme), is_open)


def _signed_in(request: Request) -> Viewer | None:
    """The viewer with its key, where one is asked for; None where it has to sign in."""
    viewer, cookie = viewer_of(request), request.cookies.get(COOKIE)
    if viewer.is_open:
        return viewer
    try:
        caller = page_of(request).sessions.find(cookie) if cookie else None
    except Refusal as refusal:
        if refusal.status != 401:
            raise
        return None  # the key was revoked, or has expired
    return Viewer(caller, viewer.words, viewer.theme) if caller is not None else None


def _missing(request: Request) -> Response:
    words = viewer_of(request).words
    return _error(request, 404, words("not_found"), words("not_found_remedy"))


def _error(request: Request, status: int, message: str, remedy: str) -> Response:
    return render(request, "error.html", status=status, message=message, remedy=remedy)
