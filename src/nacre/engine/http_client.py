"""One upstream over HTTP: connections, timeouts, retries with full jitter, and what an upstream's errors mean.

Requests are POSTs of JSON. Retried: 429, 5xx, timeouts, lost connections and replies cut short, a bounded number of
times and seconds. Never retried: a request that the upstream calls bad. Redirects are not followed.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from typing import Any, TypeVar
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError, TimeoutError
from urllib3.util import Timeout, Url, parse_url

from nacre.engine.protocol import EngineError
from nacre.engine.retry_after import seconds_to_wait
from nacre.errors import ConfigError

Json = dict[str, Any]
Out = TypeVar("Out")
_LONGEST_QUOTE, _LONGEST_WAIT_S = 300, 30.0
_FINAL_5XX = (501, 505)


class Transient(Exception):
    """An attempt failed in a way that may pass; `after_s` is how long the upstream asks to be left alone."""

    def __init__(self, message: str, *, status: int | None = None, after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.after_s = status, after_s


class BadRequest(EngineError):
    """The upstream refuses a request for what it is; `code` is its own word for why."""

    code: str = ""


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection and for data; attempts and seconds per request; the first backoff in seconds."""

    connect_timeout_s: float = 5.0
    read_timeout_s: float = 120.0
    attempts: int = 5
    total_s: float = 300.0
    backoff_s: float = 0.5


def check_address(address: str) -> Url:
    """The parsed base address; raises ConfigError for one that cannot be called, or that carries a secret."""
    try:
        url = parse_url(address)
    except HTTPError as error:
        raise ConfigError(f"{address!r} is no address: {error}", remedy="such as http://localhost:8000/v1") from error
    if url.auth:
        raise ConfigError("the address holds a user or password", remedy="name a variable in key_variable instead")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ConfigError(f"{address!r} is no base address", remedy="such as http://localhost:8000/v1")
    return url


def is_loopback(url: Url) -> bool:
    """Whether the host is this machine."""
    host = (url.host or "").strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class HttpClient:
    """Calls one upstream. Thread-safe; `key` is sent as a bearer token and never appears in errors."""

    def __init__(self, address: str, key: str | None, patience: Patience, *, connections: int, key_name: str) -> None:
        url = check_address(address)
        self.address = address.rstrip("/")
        self._key, self._key_name, self._patience = key, key_name, patience
        self._reached = False
        proxy = None if is_loopback(url) or proxy_bypass(url.host or "") else getproxies().get(url.scheme or "")
        options: Json = {
            "maxsize": connections,
            "retries": False,
            "timeout": Timeout(connect=patience.connect_timeout_s, read=patience.read_timeout_s),
        }
        self._pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def close(self) -> None:
        """Closes the connections; calling it twice does no harm."""
        self._pool.clear()

    # --- requests

    def persist(self, once: Callable[[], Out]) -> tuple[Out, int]:
        """The result of `once`, and how often it had to be repeated.

        Waits between attempts are drawn from 0 to a bound that doubles (full jitter), and no shorter than Retry-After.
        """
        deadline = time.monotonic() + self._patience.total_s
        for attempt in count(1):
            try:
                return once(), attempt - 1
            except EngineError as error:
                error.sent = attempt
                raise
            except Transient as failure:
                bound = min(self._patience.backoff_s * 2 ** (attempt - 1), _LONGEST_WAIT_S)
                wait_s = max(random.uniform(0, bound), failure.after_s or 0.0)
                if attempt >= self._patience.attempts or time.monotonic() + wait_s > deadline:
                    raise self._given_up(failure, attempt, wait_s) from failure
                time.sleep(wait_s)
        raise AssertionError("unreachable")

    def get(self, path: str) -> Json:
        """One GET, without retries."""
        return self._json(self._send("GET", path, None, stream=False))

    def post(self, path: str, body: Json) -> Json:
        """One attempt at a POST, and its JSON object. Raises Transient or EngineError."""
        return self._json(self._send("POST", path, body, stream=False))

    def events(self, path: str, body: Json) -> Iterator[str]:
        """One attempt at a POST whose reply is a stream of server-sent events: the data of each, `[DONE]` included."""
        response = self._send("POST", path, body, stream=True)
        try:
            yield from _events(_lines(response))
        except HTTPError as error:
            raise Transient(f"the stream broke: {self._safe(error)}") from error
        finally:
            response.close()

    def _send(self, method: str, path: str, body: Json | None, *, stream: bool) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "text/event-stream" if stream else "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body, ensure_ascii=True).encode()
        try:
            response = self._pool.request(
                method, self.address + path, body=data, headers=headers, redirect=False, preload_content=not stream
            )
        except (NewConnectionError, SSLError) as error:
            if not self._reached:
                raise self._unreachable(error) from error
            raise Transient(f"no connection: {self._safe(error)}") from error
        except ConnectTimeoutError as error:
            raise Transient(f"no connection within {self._patience.connect_timeout_s:g} s") from error
        except TimeoutError as error:
            raise Transient(f"no answer within {self._patience.read_timeout_s:g} s") from error
        except HTTPError as error:
            raise Transient(f"the connection was lost: {self._safe(error)}") from error
        self._reached = True
        if not 200 <= response.status < 300:
            self._refused(response)
        return response

    def _json(self, response: urllib3.BaseHTTPResponse) -> Json:
        try:
            value = json.loads(response.data)
        except ValueError as error:
            raise Transient(f"the reply is no JSON: {self._quote(response.data)!r}", status=response.status) from error
        if not isinstance(value, dict):
            raise Transient(f"the reply is no JSON object: {self._quote(response.data)!r}", status=response.status)
        return value

    # --- errors

    def _refused(self, response: urllib3.BaseHTTPResponse) -> None:
        """Raises what a status other than 2xx means."""
        status = response.status
        try:
            data = response.data
        except HTTPError:
            data = b""
        said, code = _error_of(data)
        said = self._safe(said or self._quote(data) or response.reason or "")
        response.release_conn()
        passing = status in (408, 429) or (status >= 500 and status not in _FINAL_5XX)
        if passing and code != "insufficient_quota":
            after_s = seconds_to_wait(response.headers.get("Retry-After"))
            raise Transient(f"HTTP {status}: {said}", status=status, after_s=after_s)
        error = BadRequest(f"{self.address}: HTTP {status}: {said}", remedy=self._remedy(response), status=status)
        error.code = code
        raise error

    def _remedy(self, response: urllib3.BaseHTTPResponse) -> str:
        status = response.status
        if status in (401, 403):
            named = f"the key in ${self._key_name}" if self._key_name else "name the key's variable in key_variable"
            return f"check {named}" if self._key_name else named
        if 300 <= status < 400:
            place = self._safe(response.headers.get("Location", ""))
            return f"redirects are not followed: give the final address{f' ({place})' if place else ''}"
        return {
            404: "check the address (it usually ends in /v1) and the model's name",
            413: "send shorter texts, or fewer at a time (batch)",
            429: "the account's quota is used up: raise it with the provider",
        }.get(status, "correct the request: the upstream will not take it as it is")

    def _unreachable(self, error: Exception) -> EngineError:
        what = f"{self.address} cannot be reached: {self._safe(error)}"
        return EngineError(what, remedy="check that the server runs, and its address and port")

    def _given_up(self, failure: Transient, attempts: int, wait_s: float) -> EngineError:
        times = "once" if attempts == 1 else f"{attempts} times"
        asked = f", and asks for {wait_s:.0f} s of patience" if failure.after_s else ""
        error = EngineError(
            f"{self.address} was asked {times} and failed{asked}: {failure}",
            remedy="try again later, or raise attempts and total_s: what was answered is kept",
            status=failure.status,
        )
        error.sent = attempts
        return error

    def _quote(self, data: bytes) -> str:
        return self._safe(data[:_LONGEST_QUOTE].decode("utf-8", "replace"))

    def _safe(self, text: object) -> str:
        """A text of others without the key, and not too long."""
        plain = str(text)
        return (plain.replace(self._key, "***") if self._key else plain)[:_LONGEST_QUOTE]


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    """Lines as they arrive; a character is never cut, because bytes are split at line ends only."""
    rest = b""
    while chunk := response.read1(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace")


def _events(lines: Iterator[str]) -> Iterator[str]:
    """The data of server-sent events (WHATWG HTML, section 9.2.6); an event that is cut off is left out."""
    data: list[str] = []
    for line in lines:
        if not line and data:
            yield "\n".join(data)
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def _error_of(data: bytes) -> tuple[str, str]:
    """Message and code of an error in OpenAI's shape, or in one of its variants; empty where there is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return "", ""
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        return str(error.get("message") or error.get("detail") or ""), str(error.get("code") or error.get("type") or "")
    return str(error), ""
