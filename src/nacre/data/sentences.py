"""Sentences of Chinese and English texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SENTENCE = re.compile(r"[^\n]*?(?:[。！？…]+[”’』」）]*|[.!?]+[\"')\]”’]*(?=\s)|\n|$)")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, by final marks and line breaks; nothing but blanks is lost."""
    return (found for match in _SENTENCE.finditer(text) if (found := match.group().strip()))
