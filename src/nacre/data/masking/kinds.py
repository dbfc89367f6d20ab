"""The kinds of personal data and secrets that are known, and what a finding is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nacre.errors import ConfigError, closest


@dataclass(frozen=True)
class Kind:
    """`label` stands in placeholders (`[ID_1]`, `<ID>`), `words` in messages. `by_model`: only a tagger finds it."""

    label: str
    words: str
    by_model: bool = False


# In order of evidence: where two kinds claim the same characters, the first wins.
KINDS: Mapping[str, Kind] = {
    "private_key": Kind("PRIVATE_KEY", "private key"),
    "url_credentials": Kind("URL", "URL with a password"),
    "api_key": Kind("KEY", "API key"),
    "email": Kind("EMAIL", "e-mail address"),
    "identity": Kind("ID", "Chinese identity number"),
    "credit_code": Kind("USCC", "unified social credit code"),
    "iban": Kind("IBAN", "IBAN"),
    "card": Kind("CARD", "bank card number"),
    "mobile": Kind("PHONE", "Chinese mobile number"),
    "landline": Kind("PHONE", "Chinese landline number"),
    "ssn": Kind("SSN", "US social security number"),
    "passport": Kind("PASSPORT", "Chinese passport number"),
    "plate": Kind("PLATE", "Chinese licence plate"),
    "ip": Kind("IP", "IP address"),
    "phone": Kind("PHONE", "phone number"),
    "name": Kind("NAME", "name of a person", by_model=True),
    "address": Kind("ADDRESS", "postal address", by_model=True),
}
_KNOWN = frozenset(KINDS)
RANKS = {kind: rank for rank, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Found:
    """Characters `start` to `end` of a text are personal data of this kind. `value` is kept out of `repr`."""

    kind: str
    start: int
    end: int
    value: str = field(default="", repr=False)


class Tagger(Protocol):
    """Finds what no rule can: names, addresses. Any callable of the user's, such as a trained tagger of Nacre's."""

    def __call__(self, text: str, /) -> Iterable[Found]:
        """The spans it sees, of any kinds of `KINDS`; `value` may be left empty."""
        ...


def chosen(kinds: Iterable[str] | None) -> frozenset[str]:
    """The kinds asked for, all for None. Raises ConfigError for one that does not exist."""
    if kinds is None:
        return _KNOWN
    if isinstance(kinds, frozenset) and kinds <= _KNOWN:
        return kinds
    named = frozenset([kinds] if isinstance(kinds, str) else kinds)
    for kind in sorted(named):
        if kind not in KINDS:
            raise ConfigError(f"masking knows no kind {kind!r}", remedy=closest(kind, KINDS))
    return named
