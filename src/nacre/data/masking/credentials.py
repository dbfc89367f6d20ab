"""Secrets: API keys by their prefixes, private keys, URLs with a password. `str.find` finds the anchors first."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nacre.data.masking.kinds import Found


def _mark(prefix: str) -> str:
    """The sign in a prefix that prose seldom has."""
    return "_" if "_" in prefix else "-" if "-" in prefix else ""


# Prefix -> what follows it. All bounded; a key longer than that is found as far as it goes.
_KEYS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (prefix, re.compile(re.escape(prefix) + rest))
    for prefix, rest in (
        ("sk-", r"(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,512}+"),
        ("sk_live_", r"[0-9A-Za-z]{16,256}+"),
        ("sk_test_", r"[0-9A-Za-z]{16,256}+"),
        ("rk_live_", r"[0-9A-Za-z]{16,256}+"),
        *((prefix, r"[A-Za-z0-9]{36,255}+") for prefix in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "npm_")),
        ("github_pat_", r"[A-Za-z0-9_]{22,255}+"),
        ("glpat-", r"[A-Za-z0-9_-]{20,255}+"),
        ("AKIA", r"[0-9A-Z]{16}(?![0-9A-Za-z_])"),
        ("ASIA", r"[0-9A-Z]{16}(?![0-9A-Za-z_])"),
        ("LTAI", r"(?=[A-Za-z]*[0-9])[0-9A-Za-z]{12,30}(?![0-9A-Za-z_])"),
        ("AKID", r"(?=[A-Za-z]*[0-9])[0-9A-Za-z]{24,40}(?![0-9A-Za-z_])"),
        *((f"xox{letter}-", r"[0-9A-Za-z-]{10,255}+") for letter in "abeoprs"),
        ("AIza", r"[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
        ("hf_", r"[0-9A-Za-z]{30,64}+"),
        ("pypi-AgE", r"[0-9A-Za-z_-]{50,512}+"),
        ("SG.", r"[0-9A-Za-z_-]{16,32}\.[0-9A-Za-z_-]{32,64}+"),
        ("eyJ", r"[0-9A-Za-z_-]{8,4096}+\.eyJ[0-9A-Za-z_-]{4,8192}+\.[0-9A-Za-z_-]{8,2048}+"),
    )
)
# A sign that a text has to hold -> the keys that have it: most texts hold neither, and every search costs.
_MARKED = tuple((mark, tuple(one for one in _KEYS if mark == _mark(one[0]))) for mark in ("_", "-", ""))
_WORDS = ("key", "oken", "ecret", "assw", "pwd", "earer", "KEY", "TOKEN", "SECRET", "PASSW", "Key", "密钥", "密码")
_ASSIGNED = re.compile(
    r"(?:(?:api[_-]?key|access[_-]?key(?:[_-]?(?:id|secret))?|secret(?:[_-]?access)?[_-]?key|client[_-]?secret|token|secret"
    r"|passw(?:or)?d|pwd|密钥|密码)[\"']?\s{0,2}(?:[=:]|是|为)\s{0,2}[\"']?|bearer\s{1,2})"
    r"((?=[^0-9\s]{0,40}[0-9])(?=[^A-Za-z\s]{0,40}[A-Za-z])[A-Za-z0-9_\-+/.~!#$%^*]{16,512}+={0,2})",
    re.IGNORECASE,
)
_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,.]*+")
_AUTHORITY = re.compile(
    r"[^\s/:@?#\"'<>]{0,128}+:[^\s/@\"'<>]{1,256}+@[A-Za-z0-9\[][^\s\"'<>\u3000-\u303f\u4e00-\uffef]{0,2048}+"
)
_SCHEME_MOST = 20


def api_key(text: str) -> Iterator[Found]:
    """Keys of known forms, JSON Web Tokens, and long values with digits assigned to a key, token or password."""
    for mark, keys in _MARKED:
        if mark in text:
            for prefix, pattern in keys:
                yield from _prefixed(text, prefix, pattern)
    if any(word in text for word in _WORDS):
        for match in _ASSIGNED.finditer(text):
            yield Found("api_key", *match.span(1))


def _prefixed(text: str, prefix: str, pattern: re.Pattern[str]) -> Iterator[Found]:
    place = text.find(prefix)
    while place != -1:
        before = text[place - 1 : place]
        match = None if before.isascii() and (before.isalnum() or before in ("_", "-")) else pattern.match(text, place)
        if match:
            yield Found("api_key", *match.span())
        place = text.find(prefix, match.end() if match else place + 1)


def private_key(text: str) -> Iterator[Found]:
    """PEM blocks, from BEGIN to END; without an END as far as the block's characters go: half a key is a secret too."""
    begin = _BEGIN.search(text)
    end = _END.search(text, begin.end()) if begin else None
    while begin:
        if end is not None and end.start() < begin.end():
            end = _END.search(text, begin.end())
        body = _BODY.match(text, begin.end())
        stop = body.end() if body else begin.end()
        if end is not None and end.start() <= stop:
            stop = end.end()
        elif end is not None:  # headers or dashes within: up to the END, unless another block begins before it
            between = _BEGIN.search(text, stop, end.start())
            stop = stop if between else end.end()
        yield Found("private_key", begin.start(), stop)
        begin = _BEGIN.search(text, stop)


def url_credentials(text: str) -> Iterator[Found]:
    """`scheme://user:password@host...`, whole."""
    place = text.find("://")
    while place != -1:
        start = place
        while start > max(0, place - _SCHEME_MOST) and _is_scheme(text[start - 1]):
            start -= 1
        match = _AUTHORITY.match(text, place + 3) if start < place else None
        if match:
            yield Found("url_credentials", start, match.end() - _trailing(match[0]))
        place = text.find("://", match.end() if match else place + 3)


def _is_scheme(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in "+.-")


def _trailing(url: str) -> int:
    """Signs at the end that belong to the sentence around."""
    return len(url) - len(url.rstrip(".,;:!?)]}，。"))
