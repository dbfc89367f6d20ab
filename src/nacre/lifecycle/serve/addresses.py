"""Which addresses the gateway may call: http(s) only, no private or link-local machine unless the config allows it.

Checked twice: names and literals at start, and what a name resolves to at every connection, so that a name which
changes its address later (DNS rebinding) reaches nothing that its first address could not.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from nacre.recipe.config import Problem

# Networks whose last 32 bits are an IPv4 address: NAT64 (RFC 6052, RFC 8215), and the old IPv4-compatible ones.
_CARRIERS = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))
_SITE_LOCAL = IPv6Network("fec0::/10")  # deprecated (RFC 3879), and still somebody's own
_EXAMPLE = "such as https://api.example.com/v1"


class RefusedAddress(OSError):
    """A name leads to an address that the config does not allow."""


def split(address: str) -> SplitResult:
    """The parts of a base address; raises ValueError with what is wrong with it."""
    if any(not one.isprintable() or one.isspace() for one in address):
        raise ValueError("it holds a space or a control character")
    parts = urlsplit(address)
    _ = parts.port  # raises for what is no port
    if parts.scheme not in ("http", "https"):
        raise ValueError("it is neither http nor https")
    if not parts.hostname:
        raise ValueError("it names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a user or a password")
    if parts.query or parts.fragment:
        raise ValueError("it holds a ? or a #")
    return parts


def check_upstream(address: str, allow_private: bool, where: str) -> Iterator[Problem]:
    """What is wrong with a configured address."""
    try:
        parts = split(address)
    except ValueError as error:
        remedy = "name the key's variable in key_variable" if "password" in str(error) else _EXAMPLE
        yield Problem(where, f"this is no address to call: {error}", remedy)
        return
    literal = literal_of(parts.hostname or "")
    if literal is None or is_loopback_host(str(literal)):
        return
    if not is_public(literal) and not (allow_private and is_allowed_private(literal)):
        yield Problem(
            where, f"{literal} is not a public address",
            "set allow_private: true where this machine is meant" if is_allowed_private(literal) else _EXAMPLE,
        )  # fmt: skip


@lru_cache(1024)
def literal_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is itself, in any spelling that a resolver takes (`127.1`, `0x7f.1`); None for a name."""
    try:
        return unwrapped(ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host)) if host[:1].isdigit() and " " not in host else None
    except OSError:
        return None


def unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv6 one (mapped, compatible, 6to4, NAT64), which is where a packet goes."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and int(address) > 1 and any(address in carrier for carrier in _CARRIERS):  # not :: and ::1
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is a machine of the open internet."""
    one = unwrapped(address)
    return one.is_global and not one.is_multicast and one not in _SITE_LOCAL


def is_allowed_private(address: IPv4Address | IPv6Address) -> bool:
    """Whether `allow_private` opens it: a private, link-local or loopback machine, not a broadcast or nothing."""
    one = unwrapped(address)
    return not (one.is_multicast or one.is_unspecified or one.is_reserved)


@lru_cache(1024)
def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine by its very spelling: a loopback literal, or `localhost`."""
    literal = literal_of(host.strip("[]"))
    return literal.is_loopback if literal is not None else host.lower() in ("localhost", "localhost.")


class GuardedResolver(AbstractResolver):
    """Resolves names, and drops what a host may not lead to. `private` says of each host whether it may be private."""

    def __init__(self, private: Mapping[str, bool]) -> None:
        self._private, self._inner = dict(private), ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [one for one in found if self._may(host, ip_address(one["host"].partition("%")[0]))]
        if not allowed:
            raise RefusedAddress(f"{host} leads to an address that is not public")
        return allowed

    def _may(self, host: str, address: IPv4Address | IPv6Address) -> bool:
        if is_loopback_host(host):
            return unwrapped(address).is_loopback
        return is_public(address) or (self._private.get(host.lower(), False) and is_allowed_private(address))

    async def close(self) -> None:
        await self._inner.close()
