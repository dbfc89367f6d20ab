"""The refusals that the gateway itself gives, each with what to change; one function per reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from nacre.lifecycle.serve.contract import Refusal

UNKNOWN_MODEL = "model_not_found"


def no_path(path: str, known: Iterable[str]) -> Refusal:
    """404 with the closest path; a path is quoted only as far as it is printable."""
    shown = "".join(one if one.isprintable() else "?" for one in path[:100])
    return Refusal(404, f"there is no {shown}{_closest(path, known)}", kind="not_found_error", code="no_such_path")


def wrong_method(path: str, method: str, allowed: str) -> Refusal:
    """405."""
    return Refusal(405, f"{path} takes {allowed}, not {method[:16]}", code=f"use_{allowed.lower()}")


def no_model(name: str, known: Sequence[str]) -> Refusal:
    """404 with the closest model of those that the caller may see."""
    close = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else "GET /v1/models lists what there is"
    return Refusal(
        404, f"there is no model of this name, or this key may not use it; {hint}",
        kind="not_found_error", code=UNKNOWN_MODEL, param="model",
    )  # fmt: skip


def no_key() -> Refusal:
    """401 for a request without a key."""
    return Refusal(
        401, "no key was given: send the header `Authorization: Bearer KEY`",
        kind="authentication_error", code="missing_api_key",
    )  # fmt: skip


def wrong_key() -> Refusal:
    """401 for a key that is not known."""
    return Refusal(
        401, "this key is not known here: check it, or ask for a new one",
        kind="authentication_error", code="invalid_api_key",
    )  # fmt: skip


def not_admin() -> Refusal:
    """403 for what only an administrator's key may see."""
    return Refusal(403, "an administrator's key is needed here", kind="permission_error", code="not_admin")


def foreign_page() -> Refusal:
    """403 for a browser on somebody else's page, while no keys are asked for."""
    return Refusal(
        403, "this gateway asks for no keys and answers this machine only: call it as localhost, not from another page",
        kind="permission_error", code="foreign_origin",
    )  # fmt: skip


def no_length() -> Refusal:
    """411."""
    return Refusal(411, "the request has no body length: send Content-Length", code="length_required")


def too_large(limit: int) -> Refusal:
    """413."""
    return Refusal(413, f"the body is larger than {limit:,} bytes: send less at a time", code="body_too_large")


def packed(encoding: str) -> Refusal:
    """415 for a compressed body."""
    shown = encoding[:20] if encoding.isascii() and encoding.isprintable() else "?"
    return Refusal(415, f"Content-Encoding {shown} is not read: send the body as it is", code="unsupported_encoding")


def slow_body(seconds: float) -> Refusal:
    """408."""
    return Refusal(408, f"the body did not arrive within {seconds:g} s: send it faster", code="body_timeout")


def no_json(why: str) -> Refusal:
    """400 for a body that is no JSON; `why` names a place, never the text there."""
    return Refusal(400, f"the body is no JSON object: {why}", code="invalid_json")


def too_deep(limit: int) -> Refusal:
    """400 for JSON inside JSON inside JSON."""
    return Refusal(400, f"the body is nested deeper than {limit} levels: flatten it", code="nested_too_deep")


def wrong_field(param: str, what: str) -> Refusal:
    """400 for a field."""
    return Refusal(400, what, code="invalid_field", param=param)


def unable(model: str, ability: str, param: str | None) -> Refusal:
    """400 where no model of the route has an ability that the request needs."""
    what = _NEEDS.get(ability, f"it does not serve {ability}")
    return Refusal(
        400, f"{model} cannot answer this: {what}; ask another model, or leave it out",
        code="unsupported", param=param,
    )  # fmt: skip


_NEEDS = {
    "tools": "its config does not list the ability `tools`",
    "json_schema": "its config does not list the ability `json_schema` (response_format)",
    "stream": "it does not stream",
}


def busy(limit: int) -> Refusal:
    """429 for the whole server."""
    return Refusal(
        429, f"{limit} requests are under way: try again in a moment",
        kind="rate_limit_error", code="server_busy", retry_after=1.0,
    )  # fmt: skip


def stopping() -> Refusal:
    """503 while the server drains."""
    return Refusal(
        503, "the server is stopping: try again in a moment",
        kind="server_error", code="stopping", retry_after=2.0,
    )  # fmt: skip


def not_kept() -> Refusal:
    """503 where an entry has to be on disk before its answer goes out, and the disk does not take it."""
    return Refusal(
        503, "the ledger cannot be written now: try again later", kind="server_error", code="ledger_down",
        retry_after=2.0,
    )  # fmt: skip


def fault(request_id: str) -> Refusal:
    """500 for a mistake of ours; the log has the rest under the request's id."""
    return Refusal(
        500, f"the gateway failed at this request; its log says why under {request_id}",
        kind="server_error", code="internal_error",
    )  # fmt: skip


def out_of_time(seconds: float) -> Refusal:
    """504 for a call that took all its time."""
    return Refusal(
        504, f"no whole answer within {seconds:.0f} s: ask for less, or stream",
        kind="upstream_error", code="timeout",
    )  # fmt: skip


def _closest(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""
