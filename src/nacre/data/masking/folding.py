"""Text as the finders read it: one character for one, so that positions hold in the text as it was written."""

from __future__ import annotations

import re

_DIGIT_ROWS = (
    0x0660,
    0x06F0,
    0x0966,
    0xFF10,
    *range(0x1D7CE, 0x1D7FF, 10),
)  # Arabic-Indic, ..., full-width, mathematical
_TABLE = (
    {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
    | {row + digit: ord("0") + digit for row in _DIGIT_ROWS for digit in range(10)}
    | dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212), ord("-"))
    | dict.fromkeys((0x00A0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F, 0x3000), ord(" "))
)
# Every Chinese text has full-width commas; translating costs, so that it waits for a sign that changes a finding.
_TELLING = frozenset(chr(code) for code in _TABLE) - frozenset("，！？；：（）、～")
_COMMON = (("：", ":"), ("（", "("), ("）", ")"))
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_ESCAPED = re.compile(r"\\(?:u[0-9A-Fa-f]{4}|[nrt])")  # JSON pasted into a prompt: `\n138...` is no word


def visible(text: str) -> tuple[str, list[int] | None]:
    """The text without characters that nobody sees (zero-width spaces and joiners, soft hyphens), and the place of each
    character that is left; None where nothing was taken out."""
    if text.isascii() or not _INVISIBLE.search(text):
        return text, None
    places = [place for place, character in enumerate(text) if not _INVISIBLE.match(character)]
    return "".join(text[place] for place in places), places


def fold(text: str) -> str:
    """Full-width and foreign digits, letters and signs as ASCII; escapes of pasted JSON as spaces. Length is kept."""
    folded = text
    if not text.isascii():
        if not _TELLING.isdisjoint(text):  # a fifth of the time that a pattern of all of them takes
            folded = text.translate(_TABLE)
        else:
            for wide, narrow in _COMMON:
                folded = folded.replace(wide, narrow)
    if "\\" in folded:
        folded = _ESCAPED.sub(lambda match: " " * len(match[0]), folded)
    return folded
