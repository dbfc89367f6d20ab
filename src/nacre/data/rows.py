"""What a row is, and the text that stands for it when rows are compared, hashed or counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from nacre.errors import DataError

Row = dict[str, Any]

# The fields that carry a row's content, in the order in which they are looked for.
CONTENT_FIELDS = (("text",), ("tokens",), ("source", "target"), ("messages",))


def content(row: Row, fields: Iterable[str] | None = None) -> str:
    """The text of a row: its text, its tokens, its pair, its messages; or the given `fields`, joined by a tab.

    Tokens are joined by a space where both neighbours are not Chinese, so that a tagged sentence reads as its text.
    Raises DataError when the row has none of them.
    """
    names = content_fields(row) if fields is None else tuple(fields)
    if len(names) == 1 and isinstance(row.get(names[0]), str):
        only: str = row[names[0]]
        return only
    absent = [name for name in names if name not in row]
    if absent:
        raise DataError(
            f"a row has no field {absent[0]!r}; it has: {', '.join(map(repr, row)) or '(nothing)'}",
            remedy="name a field that every row has",
        )
    return "\t".join(_flat(row[name]) for name in names)


def content_fields(row: Row) -> tuple[str, ...]:
    """The fields that carry a row's content. Raises DataError when it has none of the known ones."""
    for group in CONTENT_FIELDS:
        if all(name in row for name in group):
            return group
    known = " | ".join("+".join(group) for group in CONTENT_FIELDS)
    raise DataError(
        f"a row has none of the content fields {known}; it has: {', '.join(map(repr, row)) or '(nothing)'}",
        remedy="map the source's fields (config: fields) or name the fields to compare",
    )


def _flat(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return join_tokens(value)
    if isinstance(value, list) and all(isinstance(part, dict) and "content" in part for part in value):
        return "\n".join(str(part["content"]) for part in value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def join_tokens(tokens: list[str]) -> str:
    """Tokens as running text: a space between two tokens unless one of the touching characters is Chinese."""
    joined = ""
    for token in tokens:
        close = not joined or not token or is_han(joined[-1]) or is_han(token[0])
        joined += token if close else f" {token}"
    return joined


def is_han(character: str) -> bool:
    """Whether a character is a Chinese character, Chinese punctuation, or a full-width form."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\uffef" or character >= "\U00020000"


def canonical(row: Row) -> str:
    """One string per row content, whatever the order of its fields: the tie-breaker of order-independent choices."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def n_bytes(row: Row) -> int:
    """UTF-8 bytes of all the strings that a row holds, at any depth."""
    return sum(map(_string_bytes, row.values()))


def _string_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        if all(isinstance(part, str) for part in value):
            return _string_bytes("".join(value))
        return sum(map(_string_bytes, value))
    if isinstance(value, dict):
        return sum(map(_string_bytes, value.values()))
    return 0


def digest64(text: str) -> int:
    """64 bits of the BLAKE2b hash of a text: the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
