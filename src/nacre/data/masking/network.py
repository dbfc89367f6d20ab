"""E-mail and IP addresses."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from nacre.data.masking import checks, context
from nacre.data.masking.kinds import Found

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_TOP = re.compile(r"\.(?:[A-Za-z]{2,24}|xn--[A-Za-z0-9-]{1,59})\Z")
_FILES = frozenset(
    ("png", "jpg", "jpeg", "gif", "webp", "svg", "js", "ts", "css", "json", "html", "py", "md", "txt", "pdf")
)
_LOCAL_MOST = 64
_LOCAL = string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~.-"

_IPV4 = re.compile(r"[0-9](?<![0-9A-Za-z_.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z_])(?!\.[0-9])")
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z_:.])(?:[0-9A-Fa-f]{1,4}:|::)(?:[0-9A-Fa-f]{0,4}:){0,7}(?:[0-9A-Fa-f]{1,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})?"
    r"(?![0-9A-Za-z_:])"
)
_PRODUCT = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*/\Z")  # Chrome/120.0.0.0


def email(text: str) -> Iterator[Found]:
    """Found from the `@` outwards, a bounded way: `a@b.cd`, beside Han characters as well."""
    place = text.find("@")
    while place != -1:
        found = _email_around(text, place)
        if found:
            yield found
        place = text.find("@", place + 1)


def _email_around(text: str, place: int) -> Found | None:
    host = _HOST.match(text, place + 1)
    floor = max(0, place - _LOCAL_MOST)
    start = floor + len(text[floor:place].rstrip(_LOCAL))
    while start < place and text[start] in ".'`{|/=?&*":
        start += 1
    if host is None or start == place:
        return None
    name = host[0].split("..")[0]
    if not _TOP.search(name) or name.rpartition(".")[2].lower() in _FILES:
        return None
    end = place + 1 + len(name)
    if text[start:place] == "git" and text[end : end + 1] == ":":
        return None
    return Found("email", start, end)


def ip(text: str) -> Iterator[Found]:
    """IPv4 and IPv6 of a host; loopback, multicast, versions and section numbers are none."""
    if "." in text:
        for match in _IPV4.finditer(text):
            start, end = match.span()
            if not checks.is_host_address(match[0]) or context.names_a_thing(text, start):
                continue
            if context.is_section(text, start, end) or _is_product_version(text, start):
                continue
            yield Found("ip", start, end)
    if text.count(":") >= 2:
        for match in _IPV6.finditer(text):
            if any("0" <= character <= "9" for character in match[0]) and checks.is_host_address(match[0]):
                yield Found("ip", *match.span())


def _is_product_version(text: str, start: int) -> bool:
    before = text[max(0, start - context.REACH) : start]
    return before.endswith("/") and "//" not in before and _PRODUCT.search(before) is not None
