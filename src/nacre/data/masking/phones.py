"""Telephone numbers: Chinese mobile and landline, written with a country code, North American, or announced as such."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nacre.data.masking import context
from nacre.data.masking.kinds import Found

_END = r"(?![0-9A-Za-z_])(?!\.[0-9])"
_MOBILE_BODY = (
    r"(?:3[0-9]|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8[0-9]|9[0-35-9])"
    r"(?:[0-9]{8}|[ -][0-9]{4}[ -][0-9]{4}|[0-9][ -][0-9]{3}[ -][0-9]{4}|[ -][0-9]{8}|[ -][0-9]{3}[ -][0-9]{5}"
    r"|[0-9]{2}[ -][0-9]{6})" + _END
)
_MOBILE = re.compile(r"1(?<![0-9A-Za-z_]1)(?<![0-9A-Za-z][.\-]1)" + _MOBILE_BODY)
_MOBILE_ABROAD = re.compile(r"(?<![0-9A-Za-z_+])(?:\(?\+|00|\+00)?\(?86\)?[ -]?1" + _MOBILE_BODY)
_AREA = r"(?:10|2[0-9]|[3-9][0-9]{2})"
_LANDLINE = re.compile(
    r"[0(](?<![0-9A-Za-z_][0(])(?<![0-9A-Za-z][.\-]0)(?:(?<=\()0" + _AREA + r"\)[ -]?|(?<=0)" + _AREA + r"[ -]?)"
    r"[2-8][0-9]{2,3}[ -]?[0-9]{4}(?:\s?(?:-|转|ext\.?|分机)\s?[0-9]{1,6})?" + _END
)
_ABROAD = re.compile(r"\+[1-9](?<![0-9A-Za-z_+]\+[1-9])[0-9 ().\-]{6,22}+")
_NORTH_AMERICAN = re.compile(
    r"[0-9(](?<![0-9A-Za-z_][0-9(])(?<![0-9][.\-][0-9])(?:(?:(?<=1)|(?<=0)01)[-. ]\(?[2-9][0-9]{2}"
    r"|(?<=\()[2-9][0-9]{2}|(?<=[2-9])[0-9]{2})"
    r"(?:\)[ -]?[2-9][0-9]{2}[-. ]|([-.])[2-9][0-9]{2}\1)[0-9]{4}(?:\s?(?:x|ext\.?)\s?[0-9]{1,6})?" + _END
)
_ANNOUNCED = re.compile(r"[0-9(](?<![0-9A-Za-z_+][0-9(])[0-9 ().\-]{5,20}+")
_HOTLINE = re.compile(r"[48]00[ -]?[0-9]{3}[ -]?[0-9]{4}(?![0-9])")
_GROUPS_APART = re.compile(r"[ .\-]{3}|\.\.|--|[0-9]{2}\. ")
_DATE = re.compile(
    r"(?:1[0-9]|20)[0-9]{2}[ .\-]{1,3}(?:(?:1[0-9]|20)[0-9]{2}|[0-9]{1,2}[ .\-][0-9]{1,2})(?![0-9])"
    r"|[0-9]{1,2}[.\-][0-9]{1,2}[.\-](?:19|20)[0-9]{2}(?![0-9])"
)
_EXTENSION = re.compile(r"\s?(?:x|ext\.?|转|分机)\s?[0-9]{1,6}")


def mobile(text: str) -> Iterator[Found]:
    """Eleven digits of a Chinese network, also 3-4-4, with or without +86."""
    for pattern in (_MOBILE, _MOBILE_ABROAD) if "86" in text else (_MOBILE,):
        for match in pattern.finditer(text):
            if not context.names_a_thing(text, match.start()) and not context.counts(text, *match.span()):
                yield Found("mobile", *match.span())


def landline(text: str) -> Iterator[Found]:
    """Area code and seven or eight digits, with an extension."""
    for match in _LANDLINE.finditer(text):
        digits = sum("0" <= character <= "9" for character in _EXTENSION.sub("", match[0]))
        if digits < 10 or context.names_a_thing(text, match.start()) or context.counts(text, *match.span()):
            continue
        yield Found("landline", *match.span())


def phone(text: str) -> Iterator[Found]:
    """`+` and a country code; North American forms; seven to fifteen digits that the text announces as a phone's.

    Hotlines (400, 800) are nobody's.
    """
    spans = [match.span() for match in _ABROAD.finditer(text)] if "+" in text else []
    spans += [one.span() for one in _ANNOUNCED.finditer(text) if context.names_a_phone(text, one.start())]
    for start, stop in spans:
        end = _trimmed(text, start, stop)
        if end is not None and not _is_other(text, start) and not context.counts(text, start, end):
            yield Found("phone", start, _with_extension(text, end))
    for match in _NORTH_AMERICAN.finditer(text):
        if not _is_other(text, match.start()) and not context.names_a_thing(text, match.start()):
            yield Found("phone", *match.span())


def _is_other(text: str, start: int) -> bool:
    """A hotline, a date, or a span of years."""
    return _HOTLINE.match(text, start) is not None or _DATE.match(text, start) is not None


def _with_extension(text: str, end: int) -> int:
    extension = _EXTENSION.match(text, end)
    return extension.end() if extension else end


def _trimmed(text: str, start: int, end: int) -> int | None:
    """The end of a number of 7 to 15 digits: groups that do not belong to it are given back. None: no number."""
    if _cuts_a_word(text, end):
        end = max(text.rfind(" ", start, end), start)
    while end > start:
        number = text[start:end].rstrip(" ().-")
        digits = sum("0" <= character <= "9" for character in number)
        if digits < 7:
            return None
        if digits <= 15 and not _GROUPS_APART.search(number):
            return start + len(number)
        end = max(text.rfind(" ", start, start + len(number)), start)
    return None


def _cuts_a_word(text: str, end: int) -> bool:
    after = text[end : end + 1]
    return text[end - 1].isdecimal() and after.isascii() and after.isalnum() and not _EXTENSION.match(text, end)
