"""Numbers with a check digit, and papers: identity, credit code, bank card, IBAN, social security, plate, passport.

Every pattern is bounded and begins at a boundary, so that a run of a million digits costs one look each. The boundary
stands behind the first character (`1(?<!\\w1)`): a pattern that begins with a lookbehind scans ten times slower.
Beside Han characters there is no word boundary, hence lookarounds over ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nacre.data.masking import checks, context
from nacre.data.masking.kinds import Found

END = r"(?![0-9A-Za-z_])(?!\.[0-9])"
_DIGIT = r"[0-9](?<![0-9A-Za-z_][0-9])(?<![0-9][.\-][0-9])"

_IDENTITY_18 = re.compile(
    r"[1-9](?<![0-9A-Za-z_][0-9])[0-9]{5}([ -]?)(?:18|19|20)[0-9]{2}[01][0-9][0-3][0-9]\1"
    r"[0-9]{3}[0-9Xx](?![0-9A-Za-z_])"
)
_IDENTITY_15 = re.compile(r"[1-9](?<![0-9A-Za-z_][0-9])[0-9]{7}[01][0-9][0-3][0-9]{4}" + END)
_CREDIT_CODE = re.compile(
    r"[1-9ANYany](?<![0-9A-Za-z_][0-9A-Za-z])[1-9][0-9]{6}[0-9A-HJ-NP-RT-UW-Ya-hj-np-rt-uw-y]{10}(?![0-9A-Za-z_])"
)
_CARD = re.compile(
    _DIGIT + r"(?:[0-9]{11,18}|[0-9]{3}(?:([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?"
    r"|[ -][0-9]{6}[ -][0-9]{4,5})|[0-9]{5}[ -][0-9]{13})" + END
)
_SOCIAL_SECURITY = re.compile(_DIGIT + r"[0-9]{2}(?:([ -])[0-9]{2}\1[0-9]{4}|[0-9]{6})" + r"(?![0-9A-Za-z_-])")
_IBAN = re.compile(r"[0-9]{2}(?<=[A-Za-z]{2}[0-9]{2})(?<![0-9A-Za-z_][A-Za-z]{2}[0-9]{2})")
_IBAN_BODY = re.compile(r"(?:[ -]?[0-9A-Za-z]){11,30}+")
_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE = re.compile(
    rf"[{_PROVINCE}] ?[A-HJ-NP-Za-hj-np-z][ ·•・.-]?(?:(?=(?:[A-Za-z]?[0-9]){{3}}|[0-9]*[A-Za-z][0-9]*[A-Za-z]?[0-9])"
    r"[0-9A-HJ-NP-Za-hj-np-z]{5}|[0-9A-HJ-NP-Za-hj-np-z]{4}[挂学警港澳]"
    r"|[A-HJKa-hjk][0-9A-HJ-NP-Za-hj-np-z][0-9]{4}|[0-9]{5}[A-HJKa-hjk])(?![0-9A-Za-z_])"
    r"|[使领][0-9]{6}(?![0-9A-Za-z_])|[0-9]{6}[使领]"
)
_PASSPORT = re.compile(
    r"[DEGHMPSdeghmps](?<![0-9A-Za-z_][A-Za-z])(?:[0-9]{8,10}|[A-HJ-NP-Za-hj-np-z][0-9]{7}|[0-9]{7})(?![0-9A-Za-z_])"
)


def digits_of(text: str) -> str:
    """The digits and letters, without the separators between them."""
    return text.replace(" ", "").replace("-", "")


def identity(text: str) -> Iterator[Found]:
    """18 characters with a valid date and check character, also written 6-8-4; 15 digits with a valid date."""
    for match in _IDENTITY_18.finditer(text):
        if checks.is_identity_18(digits_of(match[0])):
            yield Found("identity", *match.span())
    for match in _IDENTITY_15.finditer(text):
        if checks.is_identity_15(match[0]) and not context.names_a_thing(text, match.start()):
            yield Found("identity", *match.span())


def credit_code(text: str) -> Iterator[Found]:
    """18 characters of a registered organisation."""
    for match in _CREDIT_CODE.finditer(text):
        if checks.is_credit_code(match[0]):
            yield Found("credit_code", *match.span())


def card(text: str) -> Iterator[Found]:
    """12 to 19 digits that pass Luhn and begin as a network's; or any such number that the text calls a card."""
    for match in _CARD.finditer(text):
        number = digits_of(match[0])
        if not checks.is_luhn(number) or context.names_a_thing(text, match.start()):
            continue
        if checks.is_card_prefix(number) or context.before(context.CARD, text, match.start()):
            yield Found("card", *match.span())


def social_security(text: str) -> Iterator[Found]:
    """`123-45-6789`; without separators only where the text says what it is."""
    for match in _SOCIAL_SECURITY.finditer(text):
        number = digits_of(match[0])
        said = match[1] == "-" or context.before(context.SOCIAL_SECURITY, text, match.start())
        if said and checks.is_social_security(number) and not context.names_a_thing(text, match.start()):
            yield Found("ssn", *match.span())


def iban(text: str) -> Iterator[Found]:
    """A country's account number, together or in groups."""
    for match in _IBAN.finditer(text):
        start = match.start() - 2
        length = checks.IBAN_LENGTHS.get(text[start : start + 2].upper())
        body = _IBAN_BODY.match(text, match.end(), match.end() + 60) if length else None
        if body is None or length is None:
            continue
        end = _end_after(text, match.end(), length - 4)
        if end and not _goes_on(text, end) and checks.is_iban(digits_of(text[start:end])):
            yield Found("iban", start, end)


def _goes_on(text: str, end: int) -> bool:
    return text[end : end + 1].isascii() and text[end : end + 1].isalnum()


def _end_after(text: str, start: int, n: int) -> int | None:
    """Where `n` letters or digits from `start` on end, single separators between them left out."""
    for place in range(start, min(len(text), start + 2 * n)):
        if text[place] not in " -":
            n -= 1
            if n == 0:
                return place + 1
    return None


def plate(text: str) -> Iterator[Found]:
    """Plates of cars, new-energy cars (6 characters), trailers, learners, police, embassies and consulates."""
    for match in _PLATE.finditer(text):
        if sum("0" <= character <= "9" for character in match[0]) >= 3:
            yield Found("plate", *match.span())


def passport(text: str) -> Iterator[Found]:
    """A passport or travel permit, where the text says that it is one: the form alone is any product's code."""
    for match in _PASSPORT.finditer(text):
        if context.beside(context.PASSPORT, text, *match.span()):
            yield Found("passport", *match.span())
