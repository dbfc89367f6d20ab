"""Somebody else's model behind an OpenAI-compatible address: its bytes are passed on as they come.

One bounded pool of connections serves all upstreams. Redirects are never followed, nothing is decompressed, no request
is sent twice. Everything that goes wrong before the first byte is a Refusal, so that a route may go on to its next
model; after it, the stream ends with an error event and without [DONE].
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson

import nacre
from nacre.engine.openai_http import key_from
from nacre.engine.openai_wire import is_same_model
from nacre.errors import ConfigError
from nacre.lifecycle.serve import upstream_errors as failures
from nacre.lifecycle.serve.addresses import is_loopback_host, split
from nacre.lifecycle.serve.config import UpstreamConfig
from nacre.lifecycle.serve.contract import Ability, Call, Json, Reply, Route
from nacre.lifecycle.serve.events import EventWatch, usage_in
from nacre.lifecycle.serve.line import Line, Origin, TraceHeaders
from nacre.lifecycle.serve.link import Link
from nacre.lifecycle.serve.wire import EVENT_STREAM, error_event, header_value

_log = logging.getLogger(__name__)
_PATHS: Mapping[Route, str] = {
    "chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings",
    "classify": "/classify", "search": "/search",
}  # fmt: skip
_ERROR_BYTES = 64 * 1024


def line_for(upstreams: Mapping[str, UpstreamConfig], trace: TraceHeaders = dict) -> Line:
    """The line of these upstreams, with what their hosts and their proxies may lead to."""
    private: dict[str, bool] = {}
    for config in upstreams.values():
        host = (split(config.address).hostname or "").lower()
        private[host] = private.get(host, False) or config.allow_private
        if proxy := _proxy(config.address):
            private[(urlsplit(proxy).hostname or "").lower()] = True  # whoever set it means it
    return Line(private, trace)


def _proxy(address: str) -> str | None:
    """The proxy of the environment for this address, as the rest of Nacre uses it; none for this machine.

    Raises ConfigError for one that cannot be used: what it says may hold a password, so it is not quoted.
    """
    parts = split(address)
    host = parts.hostname or ""
    proxy = None if is_loopback_host(host) or proxy_bypass(host) else getproxies().get(parts.scheme)
    if proxy is None:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme != "http" or not urlsplit(proxy).hostname:
        variable = f"{parts.scheme.upper()}_PROXY"
        raise ConfigError(f"{variable} is no proxy that speaks http", remedy=f"{variable}=http://HOST:PORT")
    return proxy


class Upstream:
    """A `Backend` for one model at one address."""

    def __init__(self, name: str, config: UpstreamConfig, line: Line) -> None:
        self._name, self._config, self._line = name, config, line
        self._model = config.model or name
        self._base = config.address.rstrip("/")
        self._origin = Origin.of(config.address, _proxy(config.address))
        self._key: str | None = None
        self._heads: dict[Route, bytes] = {}
        self._remarked = False

    def __repr__(self) -> str:
        return f"Upstream({self._name!r} at {self._base})"

    @property
    def name(self) -> str:
        return self._name

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset(self._config.abilities)

    async def start(self) -> None:
        """Reads the key; raises NacreError where its variable is empty, or it would travel readable for others."""
        self._key = key_from(self._config.key_variable)
        parts = split(self._base)
        travels = parts.scheme == "http" and not is_loopback_host(parts.hostname or "")
        if self._key and travels and not self._config.insecure:
            raise ConfigError(
                f"model {self._name}: its key would travel to {parts.hostname} over plain http",
                remedy="use https, or set insecure: true where the network is your own",
            )
        self._heads = {route: self._head("POST", path) for route, path in _PATHS.items()}

    async def close(self) -> None:
        """Nothing of its own: the line is closed by whoever made it."""

    async def healthy(self) -> str | None:
        """Asks for the list of models, which costs nothing; None where anything but a fault is answered."""
        request = self._head("GET", "/models") + b"X-Request-Id: healthz\r\n\r\n"
        connect_s = self._config.timeouts.connect_s
        try:
            link = await self._line.ask(self._origin, request, connect_s=connect_s, answer_s=connect_s + 5)
        except OSError as error:
            return failures.in_words(error)
        link.release()
        return f"HTTP {link.status}" if link.status >= 500 else None

    async def answer(self, call: Call) -> Reply:
        """Sends the call on; raises Refusal for whatever fails before the first byte of the answer."""
        strip = call.stream and not _wants_usage(call.body)
        link = await self._send(call, strip)
        try:
            if call.stream:
                return await self._streamed(call, link, strip)
            return await self._whole(call, link)
        except BaseException:
            link.close()
            raise

    # --- inside

    def _head(self, method: str, path: str) -> bytes:
        """The part of a request's head that is the same for every call."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"nacre/{nacre.__version__}"}
        if method == "POST":
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return self._origin.head(method, urlsplit(self._base).path + path, headers)

    async def _send(self, call: Call, add_usage: bool) -> Link:
        """The answer when its headers are there and say 200."""
        body = {**call.body, "model": self._model}
        if add_usage and call.route in ("chat", "completions"):
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        data, times = orjson.dumps(body), self._config.timeouts
        more = "".join(f"{name}: {header_value(value)}\r\n" for name, value in self._line.trace().items())
        more += f"X-Request-Id: {call.id}\r\nContent-Length: {len(data)}\r\n\r\n"
        request = b"".join((self._heads[call.route], more.encode("ascii"), data))
        try:
            link = await self._line.ask(
                self._origin, request, connect_s=times.connect_s, answer_s=_left(call, times.first_byte_s)
            )
        except OSError as error:
            raise failures.unreachable(self._name, error, times) from error
        if link.status != 200:
            await self._refuse(call, link)
        if link.headers.get("content-encoding", "identity").lower() != "identity":
            link.close()
            raise failures.garbage(self._name, "it is compressed, though identity was asked for")
        return link

    async def _refuse(self, call: Call, link: Link) -> None:
        data = bytearray()
        try:
            while len(data) < _ERROR_BYTES and (chunk := await self._chunk(call, link)):
                data += chunk
        except OSError:
            data.clear()  # its status says enough
        finally:
            link.release()
        raise failures.refused(self._name, link.status, bytes(data), link.headers.get("retry-after"), self._key)

    async def _whole(self, call: Call, link: Link) -> Reply:
        data = bytearray()
        try:
            while chunk := await self._chunk(call, link):
                data += chunk
                if len(data) > self._config.reply_bytes:
                    raise failures.garbage(self._name, f"it is longer than {self._config.reply_bytes:,} bytes")
        except OSError as error:
            raise failures.cut_off(self._name, error) from error
        link.release()
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise failures.garbage(self._name, "it is no JSON") from None
        if not isinstance(value, dict):
            raise failures.garbage(self._name, "it is no JSON object")
        self._remark(value.get("model"))
        headers = _headers_of(link)
        if not headers["content-type"].lower().startswith("application/json"):
            headers = {"content-type": "application/json"}  # which it is: no browser shall show it as a page
        return Reply(self._name, 200, bytes(data), None, usage_in(value), headers)

    async def _streamed(self, call: Call, link: Link, strip: bool) -> Reply:
        """The reply once its first bytes are there: until then another model may be asked."""
        kind = link.headers.get("content-type", "")
        if not kind.lower().startswith(EVENT_STREAM):
            raise failures.garbage(self._name, "a stream was asked for, and something else came")
        try:
            first = await self._chunk(call, link, first=True)
        except OSError as error:
            raise failures.cut_off(self._name, error) from error
        if not first:
            raise failures.garbage(self._name, "it is empty")
        reply = Reply(self._name, 200, headers=_headers_of(link))
        reply.events = self._events(_Stream(call, link, EventWatch(strip), first), reply)
        return reply

    async def _events(self, stream: _Stream, reply: Reply) -> AsyncIterator[bytes]:
        watch, chunk, why = stream.watch, stream.first, None
        try:
            while chunk:
                out = watch.feed(chunk)
                reply.usage = watch.usage
                if out:
                    yield out
                chunk = await self._chunk(stream.call, stream.link)
            if (watch.done or watch.finished) and (rest := watch.rest()):  # half an event is no use to anybody
                reply.usage = watch.usage
                yield rest
        except OSError as error:
            why = error
        finally:
            stream.link.release()
        self._remark(watch.model)
        if watch.failed:  # it said so itself: one error event is enough
            reply.truncated = True
        elif why is not None or not (watch.done or watch.finished):
            reply.truncated = True
            yield (b"\n\n" if watch.is_inside else b"") + error_event(failures.cut_off(self._name, why))

    async def _chunk(self, call: Call, link: Link, *, first: bool = False) -> bytes:
        """The next bytes as they came; b"" at the end. Raises TimeoutError and other OSErrors."""
        times = self._config.timeouts
        return await link.chunk(_left(call, times.first_byte_s if first else times.between_s))

    def _remark(self, given: object) -> None:
        """Says once in the log that the upstream names another model than the one asked for."""
        if isinstance(given, str) and not self._remarked and not is_same_model(self._model, given):
            self._remarked = True
            _log.warning("model %s: asked for %s, the upstream says it is %.100r", self._name, self._model, given)


@dataclass(frozen=True)
class _Stream:
    call: Call
    link: Link
    watch: EventWatch
    first: bytes


def _wants_usage(body: Json) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _left(call: Call, seconds: float) -> float:
    """Seconds to wait: these, or what is left of the call's time."""
    return max(0.001, min(seconds, call.deadline - time.monotonic()))


def _headers_of(link: Link) -> dict[str, str]:
    """Of the upstream's headers only the content's type: the others speak of its account with us."""
    return {"content-type": link.headers.get("content-type", "application/json")}
