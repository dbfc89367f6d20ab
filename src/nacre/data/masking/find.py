"""Personal data and secrets in a text, by rules and, where one is configured, by a tagger."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from nacre.data.masking import credentials, network, numbers, phones
from nacre.data.masking.folding import fold, visible
from nacre.data.masking.kinds import RANKS, Found, Tagger, chosen

_DIGITS = re.compile(r"[0-9]+")
_MARGIN = 64  # characters beside digits within which every rule for numbers, and what it looks at, ends


@dataclass(frozen=True)
class Rule:
    """Finds one kind. It is tried where the text has one of the `marks` and, beside something that is not ASCII for
    `han`, a run of so many `digits`: then only around digits, since most of a long text has none. `alone`: of so many
    where there are fewer than three runs, for numbers that are written in groups."""

    kind: str
    finder: Callable[[str], Iterator[Found]]
    digits: int = 0
    alone: int = 0
    marks: tuple[str, ...] = ()
    han: bool = False


@dataclass(frozen=True)
class Region:
    """A part of a text around digits: where it begins, what stands there, its runs of digits and their longest."""

    start: int
    text: str
    longest: int
    runs: int

    def may_hold(self, rule: Rule) -> bool:
        """Whether a rule can find anything here."""
        return (
            rule.digits <= self.longest
            and (rule.alone <= self.longest or self.runs >= 3)
            and not (rule.han and self.text.isascii())
            and _has(self.text, rule.marks)
        )


RULES: tuple[Rule, ...] = (
    Rule("private_key", credentials.private_key, marks=("-----BEGIN",)),
    Rule("url_credentials", credentials.url_credentials, marks=("://",)),
    Rule("api_key", credentials.api_key),
    Rule("email", network.email, marks=("@",)),
    Rule("identity", numbers.identity, digits=8, alone=15),
    Rule("credit_code", numbers.credit_code, digits=7),
    Rule("iban", numbers.iban, digits=2),
    Rule("card", numbers.card, digits=4, alone=12),
    Rule("mobile", phones.mobile, digits=4),
    Rule("landline", phones.landline, digits=4),
    Rule("ssn", numbers.social_security, digits=4, alone=9),
    Rule("passport", numbers.passport, digits=7),
    Rule("plate", numbers.plate, digits=1, han=True),
    Rule("ip", network.ip, digits=1, marks=(".", ":")),
    Rule("phone", phones.phone, digits=2),
)


def find(text: str, kinds: Iterable[str] | None = None, *, model: Tagger | None = None) -> list[Found]:
    """What a text holds of these kinds (all for None), in its order, without overlaps; linear in its length.

    Of findings that overlap the longest wins, of equal ones the kind that stands first in `KINDS`; what sticks out is
    covered too. `model` finds names, addresses and whatever else it was trained for.
    """
    wanted = chosen(kinds)
    seen, places = visible(text)
    folded = fold(seen)
    found: list[Found] = []
    regions = _regions(folded)
    for rule in RULES:
        if rule.kind not in wanted:
            continue
        if not rule.digits:
            if _has(folded, rule.marks):
                found += rule.finder(folded)
            continue
        for region in regions:
            if region.may_hold(rule):
                start = region.start
                found += [Found(one.kind, one.start + start, one.end + start) for one in rule.finder(region.text)]
    if places is not None:
        found = [replace(one, start=places[one.start], end=places[one.end - 1] + 1) for one in found]
    if model is not None:
        found += [one for one in model(text) if one.kind in wanted and 0 <= one.start < one.end <= len(text)]
    return [Found(one.kind, one.start, one.end, text[one.start : one.end]) for one in _apart(found)] if found else []


def _regions(text: str) -> list[Region]:
    """The text around its digits; regions that are near each other are one. Ten searches for one character are faster
    than one for all of them."""
    if not any(digit in text for digit in "0123456789"):
        return []
    regions: list[Region] = []
    first = last = -1
    longest = runs = 0
    for match in _DIGITS.finditer(text):
        start, end = match.span()
        if first >= 0 and start - last > 2 * _MARGIN:
            regions.append(_region(text, first, last, longest, runs))
            first, longest, runs = start, 0, 0
        first = start if first < 0 else first
        last, longest, runs = end, max(longest, end - start), runs + 1
    regions.append(_region(text, first, last, longest, runs))
    return regions


def _region(text: str, first: int, last: int, longest: int, runs: int) -> Region:
    start = max(0, first - _MARGIN)
    return Region(start, text[start : last + _MARGIN], longest, runs)


def _has(text: str, marks: tuple[str, ...]) -> bool:
    return not marks or any(mark in text for mark in marks)


def _apart(found: list[Found]) -> list[Found]:
    """Overlapping findings become one, of the kind of the longest."""
    found.sort(key=lambda one: (one.start, one.start - one.end, RANKS[one.kind]))
    kept: list[Found] = []
    widest = 0
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
            widest = one.end - one.start
        elif one.end > kept[-1].end:
            last, width = kept[-1], one.end - one.start
            kept[-1] = Found(one.kind if width > widest else last.kind, last.start, one.end)
            widest = max(widest, width)
    return kept
