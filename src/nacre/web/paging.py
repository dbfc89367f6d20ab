"""Long lists in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Pages(Generic[T]):
    """One page of a list: `number` counts from 1, `total` is the length of the whole list."""

    rows: Sequence[T]
    number: int
    last: int
    total: int

    @classmethod
    def of(cls, rows: Sequence[T], asked: str | None, size: int) -> Pages[T]:
        """The page that was asked for; what is no number, or past the end, gives the nearest page there is."""
        last = max(1, -(-len(rows) // size))
        text = asked or ""
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 1
        number = max(1, min(number, last))
        return cls(rows[(number - 1) * size : number * size], number, last, len(rows))
