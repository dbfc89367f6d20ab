"""JSON of foreign files: bounded in length, number of values and depth, and only what can be written again."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from nacre.lifecycle.audit.readers.files import damaged, shown
from nacre.lifecycle.audit.said import say

MOST_VALUES = 4_000_000
DEEPEST = 64
_LONGEST_NUMBER = 40


def parse_object(data: bytes, path: Path, *, duplicates: list[str] | None = None) -> dict[str, Any]:
    """The object in `data`. Raises CheckpointError for anything else, and for NaN, infinities and lone surrogates.

    A key given twice is an error; with `duplicates` it is added to that list and the last value counts, as everywhere.
    """
    n_values = sum(data.count(one) for one in (b",", b"[", b"{"))
    if n_values > MOST_VALUES:
        what = say("its JSON has {n:,} values, at most {most:,} are read", n=n_values, most=MOST_VALUES)
        raise damaged(path, what)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) < len(items):
            twice = [key for key, count in Counter(key for key, _ in items).items() if count > 1]
            if duplicates is None:
                raise ValueError(f"the key {shown(twice[0])!r} is given twice")
            duplicates.extend(twice)
        return out

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_short,
        )
    except UnicodeDecodeError as error:
        raise damaged(path, say("is not UTF-8 at byte {at:,}", at=error.start)) from error
    except RecursionError as error:
        raise damaged(path, "its JSON is nested too deeply") from error
    except ValueError as error:
        what = say("is not the JSON that was expected: {why}", why=shown(str(error)))
        raise damaged(path, what) from error
    if not isinstance(value, dict):
        raise damaged(path, "holds no JSON object")
    _check(value, path)
    return value


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:_LONGEST_NUMBER]} is too large")
    return value


def _short(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a whole number of {len(text):,} digits")
    return int(text)


def _check(value: dict[str, Any], path: Path) -> None:
    """Depth, and text that could not be written: a lone surrogate would break whoever prints it."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
                below.extend(item.keys())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not item.isascii():
                _encodable(item, path)
        if not below:
            return
        level = below
    raise damaged(path, say("its JSON is nested deeper than {n}", n=DEEPEST))


def _encodable(text: str, path: Path) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise damaged(path, "its JSON holds half a character (a lone surrogate)") from error
