"""HTTP/1.1 towards upstreams: a bounded pool of kept connections, one request under way on each.

Own code because of its price: it adds half of what aiohttp's session adds to a request (benchmarks/gateway.py, rows
`bare line` and `bare aiohttp` beside `bare asgi`). The event loop carries bytes and TLS, llhttp parses them, and
aiohappyeyeballs connects. No redirects, no cookies, no decompression, no second try: a request is sent once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from nacre.lifecycle.serve.addresses import GuardedResolver, split
from nacre.lifecycle.serve.link import Link, NoAnswer

_KEPT_S = 4.0  # an idle connection: shorter than the 5 s after which common servers close theirs
_NAMED_S = 60.0  # for so long a resolved name is not asked for again
_SECOND_ADDRESS_S = 0.25  # RFC 8305
TraceHeaders = Callable[[], Mapping[str, str]]


class ConnectTimeout(TimeoutError):
    """No connection in time."""


class CannotConnect(OSError):
    """No connection; `why` is what failed: a name, an address that is not allowed, a handshake, a refusal."""

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


@dataclass(frozen=True)
class Origin:
    """Where requests go: a server, perhaps by way of a proxy (`http://[USER:PASSWORD@]HOST:PORT`)."""

    host: str
    port: int
    tls: bool
    proxy: str | None = None

    @classmethod
    def of(cls, address: str, proxy: str | None = None) -> Origin:
        """The origin of an address that was checked."""
        parts, tls = split(address), address.lower().startswith("https:")
        host = (parts.hostname or "").lower()
        return cls(
            host if host.isascii() else host.encode("idna").decode(), parts.port or (443 if tls else 80), tls, proxy
        )

    @property
    def authority(self) -> str:
        """As the header Host has it: the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """The request line and headers, without the empty line that ends them."""
        target = quote(path, safe="/%:@!$&'()*+,;=~")
        lines = [f"Host: {self.authority}", *(f"{name}: {value}" for name, value in headers.items())]
        if self.proxy and not self.tls:  # a plain request is told the proxy whole
            target = f"http://{self.authority}{target}"
            lines += _credentials(self.proxy)
        lines = [f"{method} {target} HTTP/1.1", *lines]
        if not all(one.isprintable() for one in lines):
            raise ValueError("a header holds a control character")
        return "".join(f"{one}\r\n" for one in lines).encode("latin-1")


class Line:
    """The connections of all upstreams. `connections` may be in use at once; who comes after waits for one.

    `private` says of each host whether it may be private; `trace` gives the headers that pass a trace on.
    """

    def __init__(self, private: Mapping[str, bool], trace: TraceHeaders = dict, connections: int = 512) -> None:
        self.trace = trace
        self._private = private
        self._resolver: GuardedResolver | None = None
        self._idle: dict[Origin, deque[tuple[float, Link]]] = {}
        self._links: set[Link] = set()
        self._free = asyncio.Semaphore(connections)
        self._named: dict[tuple[str, int], tuple[float, list[AddrInfoType]]] = {}
        self._secure: ssl.SSLContext | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def ask(self, origin: Origin, request: bytes, *, connect_s: float, answer_s: float) -> Link:
        """Sends a request, once; gives the link when the answer's headers are there. It is to be released.

        Raises ConnectTimeout, CannotConnect, TimeoutError for no headers within `answer_s`, NoAnswer.
        """
        until = time.monotonic() + answer_s
        if self._free.locked():
            async with asyncio.timeout(answer_s):
                await self._free.acquire()
        else:
            await self._free.acquire()  # does not wait
        try:
            link = self._kept(origin) or await self._connect(origin, min(connect_s, answer_s))
        except BaseException:
            self._free.release()
            raise
        link.begin(request)
        try:
            await link.headed(until - time.monotonic())
        except BaseException:
            link.close()
            raise
        return link

    def give_back(self, link: Link, *, whole: bool) -> None:
        """Takes a link that is no longer in use, to keep it where its answer was whole. For `Link` only."""
        self._free.release()
        if not whole:
            self._links.discard(link)
            return
        self._idle.setdefault(link.origin, deque()).append((time.monotonic(), link))
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_KEPT_S, self._sweep)

    def forget(self, link: Link) -> None:
        """The connection is lost. For `Link` only."""
        self._links.discard(link)

    async def close(self) -> None:
        """Closes all connections; calling it twice does no harm."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._idle.clear()
        for link in list(self._links):
            link.close()
        if self._resolver is not None:
            await self._resolver.close()

    # --- inside

    def _kept(self, origin: Origin) -> Link | None:
        """The connection that was used last, which is the least likely to be closed at the other end."""
        idle, oldest = self._idle.get(origin), time.monotonic() - _KEPT_S
        while idle:
            since, link = idle.pop()
            if link.is_open and since >= oldest:
                return link
            link.close()
        return None

    def _sweep(self) -> None:
        """Closes what was idle for too long."""
        self._sweeping, oldest = None, time.monotonic() - _KEPT_S
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0][0] < oldest or not idle[0][1].is_open):
                idle.popleft()[1].close()
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweeping = asyncio.get_running_loop().call_later(_KEPT_S / 2, self._sweep)

    async def _connect(self, origin: Origin, seconds: float) -> Link:
        try:
            async with asyncio.timeout(seconds):
                link = await self._connected(origin)
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection within {seconds:g} s") from error
        except OSError as error:
            raise CannotConnect(error) from error
        self._links.add(link)
        return link

    async def _connected(self, origin: Origin) -> Link:
        loop = asyncio.get_running_loop()
        near = urlsplit(origin.proxy) if origin.proxy else None
        host, port = (near.hostname or "", near.port or 80) if near else (origin.host, origin.port)
        sock = await start_connection(
            await self._addresses(host, port), happy_eyeballs_delay=_SECOND_ADDRESS_S, interleave=1, loop=loop
        )
        if near is None and origin.tls:
            _, link = await loop.create_connection(
                lambda: Link(self, origin), sock=sock, ssl=self._tls(), server_hostname=origin.host
            )
            return link
        _, link = await loop.create_connection(lambda: Link(self, origin), sock=sock)
        if origin.tls and origin.proxy:
            try:
                await self._tunnel(link, origin, origin.proxy)
            except BaseException:
                link.abort()
                raise
        return link

    async def _tunnel(self, link: Link, origin: Origin, proxy: str) -> None:
        """Has the proxy connect to the origin, and makes the connection behind it secure (RFC 9110, section 9.3.6)."""
        where = f"{f'[{origin.host}]' if ':' in origin.host else origin.host}:{origin.port}"
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", *_credentials(proxy), "", ""]
        link.begin("\r\n".join(lines).encode("latin-1"))
        await link.headed(60.0)  # the caller's time for connecting is shorter
        if link.status != 200:
            raise NoAnswer(f"the proxy answers HTTP {link.status}")
        await link.secure(self._tls(), origin.host)

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """What a name leads to, and may lead to."""
        known = self._named.get((host, port))
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if self._resolver is None:  # it wants a running event loop
            self._resolver = GuardedResolver(self._private)
        found: list[AddrInfoType] = []
        for one in await self._resolver.resolve(host, port, socket.AF_UNSPEC):
            family = socket.AddressFamily(one["family"])
            place = (one["host"], port, 0, 0) if family == socket.AF_INET6 else (one["host"], port)
            found.append((family, socket.SOCK_STREAM, one["proto"], "", place))
        self._named[host, port] = (time.monotonic() + _NAMED_S, found)
        return found

    def _tls(self) -> ssl.SSLContext:
        if self._secure is None:
            self._secure = ssl.create_default_context()
            self._secure.set_alpn_protocols(["http/1.1"])
        return self._secure


def _credentials(proxy: str) -> list[str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [f"Proxy-Authorization: Basic {b64encode(pair.encode()).decode()}"]
