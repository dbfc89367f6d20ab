"""Signing in and out, and the choice of language and theme."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nacre.lifecycle.serve.contract import Refusal
from nacre.web.contract import View, page_of, viewer_of
from nacre.web.rendering import Links, render
from nacre.web.sessions import COOKIE, LASTS_S
from nacre.web.words import LANGUAGES

_LONGEST_FORM = 4096
_YEAR_S = 365 * 24 * 3600


def sign_in_form(request: Request) -> Response:
    """The form that takes a key; who need not sign in is sent on."""
    back = inner_path(request.query_params.get("back", "/"))
    if viewer_of(request).is_open:
        return RedirectResponse(page_of(request).prefix + back, 303)
    return render(request, "sign_in.html", wrong="", back_to=back)


async def sign_in(request: Request) -> Response:
    """Sets the cookie of a good key."""
    page, form = page_of(request), await form_of(request)
    back = inner_path(form.get("back", "/"))
    try:
        cookie = page.sessions.begin(form.get("key", ""))  # a hash and a lookup: some microseconds
    except Refusal as refusal:
        return render(request, "sign_in.html", status=refusal.status, wrong=refusal.message, back_to=back)
    if cookie is None:
        wrong = viewer_of(request).words("wrong_key")
        return render(request, "sign_in.html", status=401, wrong=wrong, back_to=back)
    response = RedirectResponse(page.prefix + back, 303)
    keep_session(response, request, cookie)
    return response


def sign_out(request: Request) -> Response:
    """Forgets the cookie."""
    page = page_of(request)
    response = RedirectResponse(Links(page.prefix)("/sign-in"), 303)
    response.delete_cookie(COOKIE, path=page.prefix)
    return response


def choose(request: Request) -> Response:
    """Keeps a language or a theme in a cookie and goes back."""
    asked, prefix = request.query_params, page_of(request).prefix
    response = RedirectResponse(prefix + inner_path(asked.get("back", "/")), 303)
    if asked.get("language") in LANGUAGES:
        _set(response, request, "nacre_language", asked["language"], _YEAR_S)
    if asked.get("theme") in ("auto", "light", "dark"):
        _set(response, request, "nacre_theme", asked["theme"], _YEAR_S)
    return response


def inner_path(path: str) -> str:
    """A path of the page to go back to; never another host's."""
    is_inner = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_inner else "/"


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a small form (`application/x-www-form-urlencoded`), of a repeated one the first; a larger body
    than a form of ours has is read as none."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=40)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def keep_session(response: Response, request: Request, cookie: str) -> None:
    """Signs the browser in that gets this response."""
    _set(response, request, COOKIE, cookie, int(LASTS_S), strict=True)


def _set(response: Response, request: Request, name: str, value: str, lasts_s: int, *, strict: bool = False) -> None:
    response.set_cookie(
        name, value, max_age=lasts_s, path=page_of(request).prefix, httponly=True,
        secure=request.url.scheme == "https", samesite="strict" if strict else "lax",
    )  # fmt: skip


VIEWS = (
    View("/sign-in", sign_in_form, needs="nothing"),
    View("/sign-in", sign_in, needs="nothing", methods=("POST",)),
    View("/sign-out", sign_out, needs="nothing", methods=("POST",)),
    View("/settings", choose, needs="nothing"),
)
