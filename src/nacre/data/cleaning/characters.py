"""Edits of characters: what no reader sees and every tokenizer would learn."""

from __future__ import annotations

import re
import unicodedata

# Line ends other than the line feed: carriage return, next line, line and paragraph separator, form feed, vertical tab.
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff]")
# Always invisible and without effect in Chinese and English: zero-width space, word joiner, byte order mark, soft
# hyphen, invisible operators, directional marks and overrides (they also hide text from people).
_INVISIBLE = re.compile("[\u200b\u2060-\u2064\ufeff\u00ad\u200e\u200f\u202a-\u202e\u2066-\u2069\u180e]")
# The joiners matter between emoji and in Arabic or Indic script; beside Latin, Han or white space they are noise.
_PLAIN = "\\s\x00-\u024f\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_JOINERS = re.compile(f"(?<![^{_PLAIN}])[\u200c\u200d]+|[\u200c\u200d]+(?![^{_PLAIN}])")
# Tag characters spell hidden ASCII, except after a black flag, where they name a region.
_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+")
# One look decides for nearly every text that it needs no edit.
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff]")
_UNSEEN = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def nfc(text: str) -> str:
    """Canonical composition: e + acute as one character. Full-width forms stay (NFKC would change them)."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def controls(text: str) -> str:
    """Every line end a line feed; other control characters and noncharacters removed; tabs stay."""
    if _ODD.search(text) is None:
        return text
    return _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))


def zero_width(text: str) -> str:
    """Invisible characters removed; joiners stay where they shape emoji or Arabic and Indic script."""
    if text.isascii() or _UNSEEN.search(text) is None:
        return text
    return _TAGS.sub("", _JOINERS.sub("", _INVISIBLE.sub("", text)))


def spaces(text: str) -> str:
    """No white space at either end or at line ends, no run of more than one blank line. Indentation inside stays."""
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip()
