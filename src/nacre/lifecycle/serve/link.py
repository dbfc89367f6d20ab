"""One connection to an upstream, and the answer that is read from it."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import Future
from typing import TYPE_CHECKING, cast

import httptools

if TYPE_CHECKING:
    from nacre.lifecycle.serve.line import Line, Origin

_HEAD_BYTES = 64 * 1024  # of an answer's headers
_WAITING_BYTES = 256 * 1024  # of a body that nobody reads yet: then the other end has to wait


class NoAnswer(ConnectionError):
    """The connection ended before the answer did, or what came is no HTTP."""


class Link(asyncio.Protocol):
    """A connection. `status` and `headers` (names in lower case, of a repeated one the first) are there once headed."""

    def __init__(self, line: Line, origin: Origin) -> None:
        self.origin = origin
        self.status = 0
        self.headers: dict[str, str] = {}
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: Future[None] | None = None
        self._error: Exception | None = None
        self._parts: list[bytes] = []
        self._size = self._fed = 0
        self._in_use = self._is_headed = self._is_whole = self._is_extra = self._is_kept = self._is_paused = False

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, request: bytes) -> None:
        """Sends a request."""
        self._parser = httptools.HttpResponseParser(self)
        self._in_use, self._is_headed, self._is_whole, self._is_extra = True, False, False, False
        self._error, self._fed, self.status, self.headers = None, 0, 0, {}
        if self._transport is None:
            self._error = NoAnswer("it closed the connection")
        else:
            self._transport.write(request)

    async def headed(self, seconds: float) -> None:
        """Returns when the headers of the answer are there; raises TimeoutError, NoAnswer, OSError."""
        while not self._is_headed:
            if self._error is not None:
                raise self._error
            await self._wait(seconds)

    async def chunk(self, seconds: float) -> bytes:
        """The next bytes of the body as they came, b"" at its end; raises TimeoutError, NoAnswer, OSError."""
        while not self._parts:
            if self._is_whole:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(seconds)
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def release(self) -> None:
        """Gives the connection back for another request; closes it where its answer was not read to the end."""
        if not self._in_use:
            return
        if self._is_whole and self._is_kept and not self._parts and self.is_open:
            self._in_use, self._parser = False, None
            self._line.give_back(self, whole=True)
        else:
            self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._parts.clear()
        self._fail(self._error or NoAnswer("it was closed here"))
        if self._in_use:
            self._in_use = False
            self._line.give_back(self, whole=False)

    def abort(self) -> None:
        """Ends the connection, which the line does not know of."""
        if self._transport is not None:
            self._transport.abort()

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Begins TLS with whoever is behind the proxy."""
        assert self._transport is not None  # a proxy has just answered on it
        self._in_use, self._parser = False, None
        self._transport = await self._loop.start_tls(self._transport, self, context, server_hostname=host)

    async def _wait(self, seconds: float) -> None:
        self._waiter = waiter = self._loop.create_future()
        timer = self._loop.call_later(max(seconds, 0.0), _is_late, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error, self._parser = error, None
        self.abort()
        self._wake()

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._is_whole:
            self.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(NoAnswer("it changes the protocol"))
            return
        except httptools.HttpParserError as error:
            self._fail(NoAnswer(f"it is no HTTP: {type(error).__name__}"))
            return
        if not self._is_headed:
            self._fed += len(data)
            if self._fed > _HEAD_BYTES:
                self._fail(NoAnswer(f"its headers are longer than {_HEAD_BYTES:,} bytes"))
            return
        if self._size > _WAITING_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._line.forget(self)
        if not self._in_use or self._is_whole:
            return
        if self._is_headed and error is None and not self._has_length():
            self._is_whole = True  # its end is the end of the connection
        elif self._error is None:
            self._error = error or NoAnswer("it closed the connection")
        self._wake()

    def _has_length(self) -> bool:
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    # --- called by the parser

    def on_message_begin(self) -> None:
        """The beginning of an answer; a second one to one request is nobody's, and nothing of it is taken."""
        self._is_extra = self._is_whole
        self._is_kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, whole; what comes behind a body (trailers) is none."""
        if not self._is_extra and not self._is_headed:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """All headers; those of an interim answer (100) are not the answer's."""
        if not self._is_extra and self._parser is not None:
            self.status = self._parser.get_status_code()
            self._is_headed = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """Some bytes of the body."""
        if not self._is_extra:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        if self._is_extra or self._parser is None:
            return
        if self.status < 200:
            self.headers = {}
            return
        self._is_whole, self._is_kept = True, self._parser.should_keep_alive()


def _is_late(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
