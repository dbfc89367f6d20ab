"""What an upstream's failures become for a client: its own words where they help, never our key, never our address."""

from __future__ import annotations

import socket
import ssl

import orjson

from nacre.engine.retry_after import seconds_to_wait
from nacre.lifecycle.serve.addresses import RefusedAddress
from nacre.lifecycle.serve.config import Timeouts
from nacre.lifecycle.serve.contract import Refusal
from nacre.lifecycle.serve.line import CannotConnect, ConnectTimeout
from nacre.lifecycle.serve.link import NoAnswer

_LONGEST_QUOTE = 1000
_LONGEST_WAIT_S = 86400.0
_KINDS = {429: "rate_limit_error", 404: "not_found_error", 402: "insufficient_quota"}


class UpstreamRefusal(Refusal):
    """A refusal that began at an upstream."""


def unreachable(name: str, error: BaseException, times: Timeouts) -> Refusal:
    """502 or 504: no connection, or no answer in time."""
    if isinstance(error, ConnectTimeout):
        return _fault(504, f"{name}: no connection within {times.connect_s:g} s", "connect_timeout")
    if isinstance(error, TimeoutError):
        return _fault(504, f"{name}: no answer within {times.first_byte_s:g} s", "first_byte_timeout")
    if isinstance(error, CannotConnect):
        return _fault(502, f"{name} cannot be reached: {in_words(error)}", "unreachable")
    return _fault(502, f"{name} closed the connection before it answered: {in_words(error)}", "no_answer")


def cut_off(name: str, error: BaseException | None) -> Refusal:
    """502 or 504: the answer had begun."""
    if isinstance(error, TimeoutError):
        return _fault(504, f"{name} fell silent in the middle of its answer", "stalled")
    return _fault(502, f"{name} ended in the middle of its answer: ask again", "cut_short")


def garbage(name: str, what: str) -> Refusal:
    """502: an answer that is none."""
    return _fault(502, f"the answer of {name} cannot be used: {what}", "bad_answer")


def refused(name: str, status: int, data: bytes, retry_after: str | None, key: str | None) -> Refusal:
    """What the upstream refused: its status, its words, its Retry-After.

    A key that it will not have is the gateway's fault, not the client's: 502. So is a redirect, which is not followed.
    """
    if status in (401, 403):
        return _fault(502, f"{name} does not accept the gateway's key: tell whoever runs it", "upstream_key")
    if 200 <= status < 400:
        return _fault(502, f"{name} answers with HTTP {status}, which is not followed", "upstream_redirect")
    said, code, param = _words(data)
    if key:
        said = said.replace(key, "***")
    kind = "upstream_error" if status >= 500 else _KINDS.get(status, "invalid_request_error")
    return UpstreamRefusal(
        status, f"{name}: {said}" if said else f"{name}: HTTP {status}", kind=kind, code=code or f"upstream_{status}",
        param=param, retry_after=_seconds(retry_after),
    )  # fmt: skip


def in_words(error: BaseException) -> str:
    """Why a connection failed, without addresses."""
    inner = error.why if isinstance(error, CannotConnect) else error
    if isinstance(inner, RefusedAddress):
        return "its name leads to an address that is not public (allow_private)"
    if isinstance(inner, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(inner, socket.gaierror):
        return "its name is not known"
    if isinstance(inner, ssl.SSLError):
        return "its certificate is not good" if isinstance(inner, ssl.SSLCertVerificationError) else "TLS fails"
    if isinstance(inner, TimeoutError):
        return "it takes too long"
    return str(inner) if isinstance(inner, NoAnswer) else type(inner).__name__


def _fault(status: int, message: str, code: str) -> Refusal:
    return UpstreamRefusal(status, message, kind="upstream_error", code=code)


def _words(data: bytes) -> tuple[str, str | None, str | None]:
    """Message, code and field of an error in OpenAI's shape; the text itself where it is none, but no page of HTML."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data.decode("utf-8", "replace").strip()
        return ("" if text.startswith("<") else text[:200]), None, None
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        said = error.get("message") or error.get("detail") or ""
        code, param = error.get("code"), error.get("param")
        return (
            str(said)[:_LONGEST_QUOTE],
            str(code)[:64] if isinstance(code, str | int) else None,
            param[:100] if isinstance(param, str) else None,
        )
    return str(error)[:_LONGEST_QUOTE], None, None


def _seconds(said: str | None) -> float | None:
    wait = seconds_to_wait(said)
    return None if wait is None else min(wait, _LONGEST_WAIT_S)
