"""Rewards that compare an answer with what is expected, or with a form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from nacre.tiers.tune.reinforce.config import Exact, Format, Length, Number

if TYPE_CHECKING:
    from nacre.recipe.stage import Work
    from nacre.tiers.tune.reinforce.rewards.catalogue import Answer

# A minus after a digit is one of subtraction; commas group thousands.
_NUMBER = re.compile(r"(?<![\d.])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_MINUS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{FULLWIDTH HYPHEN-MINUS}": "-", "\N{EN DASH}": "-"})


def numbers(text: str) -> list[Decimal]:
    """The numbers in a text, Chinese full-width digits included."""
    plain = unicodedata.normalize("NFKC", text).translate(_MINUS)
    return [Decimal(one.replace(",", "")) for one in _NUMBER.findall(plain)]


def last_number(text: str) -> Decimal | None:
    """The last number in a text; None where there is none."""
    return found[-1] if (found := numbers(text)) else None


def _wanted(expected: Any) -> list[str]:
    return [str(one) for one in expected] if isinstance(expected, list) else [str(expected)]


class ExactReward:
    """See `Exact`."""

    needs, cut = "expected", 0.0

    def __init__(self, settings: Exact, work: Work) -> None:
        del settings, work

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return [
            float(one.text.strip() in {wanted.strip() for wanted in _wanted(one.row["expected"])}) for one in answers
        ]


class NumberReward:
    """See `Number`."""

    needs, cut = "expected", 0.0

    def __init__(self, settings: Number, work: Work) -> None:
        del settings, work

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return [self._value(one) for one in answers]

    def _value(self, answer: Answer) -> float:
        found = last_number(answer.text)
        return float(found is not None and any(found == last_number(one) for one in _wanted(answer.row["expected"])))


class FormatReward:
    """See `Format`."""

    needs, cut = None, 0.0

    def __init__(self, settings: Format, work: Work) -> None:
        del work
        self.pattern = re.compile(settings.pattern, re.DOTALL)

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return [float(self.pattern.fullmatch(one.text.strip()) is not None) for one in answers]


class LengthReward:
    """See `Length`."""

    needs, cut = None, -1.0

    def __init__(self, settings: Length, work: Work) -> None:
        del work
        self.limit, self.margin = settings.limit, settings.margin

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        free = self.limit - self.margin
        return [-min(1.0, max(0.0, (one.tokens - free) / self.margin)) for one in answers]
