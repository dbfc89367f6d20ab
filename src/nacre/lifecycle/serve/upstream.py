"""Somebody else's model behind an OpenAI-compatible address: its bytes are passed on as they come.

One session and one bounded pool of connections serve all upstreams. Redirects are never followed, nothing is
decompressed, no request is sent twice. Everything that goes wrong before the first byte is a Refusal, so that a route
may go on to its next model; after it, the stream ends with an error event and without [DONE].
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from nacre.engine.openai_http import key_from
from nacre.engine.openai_wire import is_same_model
from nacre.errors import ConfigError
from nacre.lifecycle.serve import upstream_errors as failures
from nacre.lifecycle.serve.addresses import GuardedResolver, is_loopback_host, split
from nacre.lifecycle.serve.config import UpstreamConfig
from nacre.lifecycle.serve.contract import Ability, Call, Json, Reply, Route
from nacre.lifecycle.serve.events import EventWatch, usage_in
from nacre.lifecycle.serve.wire import EVENT_STREAM, error_event

_log = logging.getLogger(__name__)
_PATHS: Mapping[Route, str] = {
    "chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings",
    "classify": "/classify", "search": "/search",
}  # fmt: skip
_KEPT_S = 4.0  # an idle connection: shorter than the 5 s after which common servers close theirs
_ERROR_BYTES = 64 * 1024
_CHUNK = 256 * 1024

TraceConfigs = Callable[[], list[aiohttp.TraceConfig]]


class Line:
    """The connections of all upstreams: one session, opened once, closed once."""

    def __init__(self, private: Mapping[str, bool], traces: TraceConfigs, connections: int = 512) -> None:
        self._private, self._traces, self._connections = private, traces, connections
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> aiohttp.ClientSession:
        """The session; opened at the first call."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections, resolver=GuardedResolver(self._private), keepalive_timeout=_KEPT_S,
                ttl_dns_cache=60,
            )  # fmt: skip
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
                read_bufsize=_CHUNK,
                trace_configs=self._traces(),
            )  # fmt: skip
        return self._session

    async def close(self) -> None:
        """Closes all connections; calling it twice does no harm."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def line_for(upstreams: Mapping[str, UpstreamConfig], traces: TraceConfigs = list) -> Line:
    """The line of these upstreams, with what their hosts and their proxies may lead to."""
    private: dict[str, bool] = {}
    for config in upstreams.values():
        host = (split(config.address).hostname or "").lower()
        private[host] = private.get(host, False) or config.allow_private
        if proxy := _proxy(config.address):
            private[(split(proxy).hostname or "").lower()] = True  # whoever set it means it
    return Line(private, traces)


def _proxy(address: str) -> str | None:
    """The proxy of the environment for this address, as the rest of Nacre uses it; none for this machine."""
    parts = split(address)
    host = parts.hostname or ""
    if is_loopback_host(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


class Upstream:
    """A `Backend` for one model at one address."""

    def __init__(self, name: str, config: UpstreamConfig, line: Line) -> None:
        self._name, self._config, self._line = name, config, line
        self._model = config.model or name
        self._base = config.address.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=config.timeouts.connect_s)
        self._proxy = _proxy(config.address)
        self._key: str | None = None
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
        await self._line.open()

    async def close(self) -> None:
        """Nothing of its own: the line is closed by whoever opened it."""

    async def healthy(self) -> str | None:
        """Asks for the list of models, which costs nothing; None where anything but a fault is answered."""
        session = await self._line.open()
        try:
            async with asyncio.timeout(self._config.timeouts.connect_s + 5):
                async with session.get(
                    f"{self._base}/models", headers=self._headers("healthz"), allow_redirects=False, proxy=self._proxy
                ) as response:
                    return f"HTTP {response.status}" if response.status >= 500 else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return failures.in_words(error)

    async def answer(self, call: Call) -> Reply:
        """Sends the call on; raises Refusal for whatever fails before the first byte of the answer."""
        strip = call.stream and not _wants_usage(call.body)
        response = await self._send(call, strip)
        try:
            if call.stream:
                return await self._streamed(call, response, strip)
            return await self._whole(call, response)
        except BaseException:
            response.close()
            raise

    # --- inside

    def _headers(self, call_id: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "X-Request-Id": call_id}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    async def _send(self, call: Call, add_usage: bool) -> aiohttp.ClientResponse:
        """The response when its headers are there and say 200."""
        body = {**call.body, "model": self._model}
        if add_usage and call.route in ("chat", "completions"):
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        session, times = await self._line.open(), self._config.timeouts
        try:
            async with asyncio.timeout(_left(call, times.first_byte_s)):
                response = await session.post(
                    self._base + _PATHS[call.route], data=orjson.dumps(body), headers=self._headers(call.id),
                    allow_redirects=False, timeout=self._timeout, proxy=self._proxy,
                )  # fmt: skip
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise failures.unreachable(self._name, error, times) from error
        if response.status != 200:
            await self._refuse(call, response)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            response.close()
            raise failures.garbage(self._name, "it is compressed, though identity was asked for")
        return response

    async def _refuse(self, call: Call, response: aiohttp.ClientResponse) -> None:
        try:
            async with asyncio.timeout(_left(call, self._config.timeouts.between_s)):
                data = await response.content.read(_ERROR_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError):
            data = b""  # its status says enough
        finally:
            response.release()
        raise failures.refused(self._name, response.status, data, response.headers.get("Retry-After"), self._key)

    async def _whole(self, call: Call, response: aiohttp.ClientResponse) -> Reply:
        data = bytearray()
        try:
            while chunk := await self._chunk(call, response):
                data += chunk
                if len(data) > self._config.reply_bytes:
                    raise failures.garbage(self._name, f"it is longer than {self._config.reply_bytes:,} bytes")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise failures.cut_off(self._name, error) from error
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise failures.garbage(self._name, "it is no JSON") from None
        if not isinstance(value, dict):
            raise failures.garbage(self._name, "it is no JSON object")
        self._remark(value.get("model"))
        return Reply(self._name, 200, bytes(data), None, usage_in(value), _headers_of(response))

    async def _streamed(self, call: Call, response: aiohttp.ClientResponse, strip: bool) -> Reply:
        """The reply once its first bytes are there: until then another model may be asked."""
        kind = response.headers.get("Content-Type", "")
        if not kind.lower().startswith(EVENT_STREAM):
            raise failures.garbage(self._name, "a stream was asked for, and something else came")
        try:
            first = await self._chunk(call, response, first=True)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise failures.cut_off(self._name, error) from error
        if not first:
            raise failures.garbage(self._name, "it is empty")
        reply = Reply(self._name, 200, headers=_headers_of(response))
        reply.events = self._events(_Stream(call, response, EventWatch(strip), first), reply)
        return reply

    async def _events(self, stream: _Stream, reply: Reply) -> AsyncIterator[bytes]:
        watch, chunk, why = stream.watch, stream.first, None
        try:
            while chunk:
                out = watch.feed(chunk)
                reply.usage = watch.usage
                if out:
                    yield out
                chunk = await self._chunk(stream.call, stream.response)
            if (watch.done or watch.finished) and (rest := watch.rest()):  # half an event is no use to anybody
                reply.usage = watch.usage
                yield rest
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = error
        finally:
            stream.response.close() if why or not watch.done else stream.response.release()
        self._remark(watch.model)
        if watch.failed:  # it said so itself: one error event is enough
            reply.truncated = True
        elif why is not None or not (watch.done or watch.finished):
            reply.truncated = True
            yield (b"\n\n" if watch.is_inside else b"") + error_event(failures.cut_off(self._name, why))

    async def _chunk(self, call: Call, response: aiohttp.ClientResponse, *, first: bool = False) -> bytes:
        """The next bytes as they came; b"" at the end. Raises TimeoutError."""
        times = self._config.timeouts
        async with asyncio.timeout(_left(call, times.first_byte_s if first else times.between_s)):
            return await response.content.readany()

    def _remark(self, given: object) -> None:
        """Says once in the log that the upstream names another model than the one asked for."""
        if isinstance(given, str) and not self._remarked and not is_same_model(self._model, given):
            self._remarked = True
            _log.warning("model %s: asked for %s, the upstream says it is %.100r", self._name, self._model, given)


@dataclass(frozen=True)
class _Stream:
    call: Call
    response: aiohttp.ClientResponse
    watch: EventWatch
    first: bytes


def _wants_usage(body: Json) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _left(call: Call, seconds: float) -> float:
    """Seconds to wait: these, or what is left of the call's time."""
    return max(0.001, min(seconds, call.deadline - time.monotonic()))


def _headers_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Of the upstream's headers only the content's type: the others speak of its account with us."""
    return {"content-type": response.headers.get("Content-Type", "application/json")}
