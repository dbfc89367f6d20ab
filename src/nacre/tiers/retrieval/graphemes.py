"""Where a text may be cut without tearing what is read as one character (Unicode annex 29, its main rules)."""

from __future__ import annotations

from unicodedata import category, combining

_JOINER = "\u200d"
_VIRAMA = 9  # the combining class of signs that join two consonants of an Indic script
_JAMO_V_T = range(0x1160, 0x1200)
_PREPENDED = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2\u0d4e")


def boundary(text: str, at: int) -> int:
    """The last place at or before `at` where `text` may be cut; 0 where there is none."""
    while 0 < at < len(text) and not may_cut(text, at):
        at -= 1
    return at


def may_cut(text: str, at: int) -> bool:
    """Whether `text[:at]` and `text[at:]` tear nothing apart."""
    before, after = text[at - 1], text[at]
    if before == "\r" and after == "\n":
        return False
    if _extends(after) or before == _JOINER or before in _PREPENDED or _joins(text, at):
        return False
    if _is_flag(before) and _is_flag(after):
        return _n_flags_before(text, at) % 2 == 0
    # A vowel or final of Hangul that stands as a letter of its own joins the syllable before it.
    return ord(after) not in _JAMO_V_T


def _joins(text: str, at: int) -> bool:
    """Whether a joining sign stands before `at`, marks between them aside."""
    place = at - 1
    while place > 0 and _extends(text[place]) and combining(text[place]) != _VIRAMA:
        place -= 1
    return combining(text[place]) == _VIRAMA


def _extends(character: str) -> bool:
    """Marks, variation selectors, joiners, skin tones, tags: what belongs to the character before."""
    return (
        category(character) in ("Mn", "Me", "Mc")
        or character in (_JOINER, "\u200c", "\uff9e", "\uff9f", "\u0e33", "\u0eb3")
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _n_flags_before(text: str, at: int) -> int:
    begin = at
    while begin > 0 and _is_flag(text[begin - 1]):
        begin -= 1
    return at - begin
