"""Entries in the database: how one is made storable, written once, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from math import isfinite
from operator import attrgetter
from typing import Any

from nacre.lifecycle.serve.contract import Entry
from nacre.lifecycle.serve.state.database import Database, Execute

_COLUMNS = tuple(one.name for one in fields(Entry))
_INSERT = (
    f"INSERT INTO entries ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO NOTHING"
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM entries"
_values_of = attrgetter(*_COLUMNS)
_LONGEST_TEXT = 256
_LARGEST = 2**53


def insert(database: Database, batch: Sequence[Entry]) -> int:
    """Writes entries in one transaction; gives how many were not there before. Raises Unavailable."""
    added = 0

    def work(execute: Execute) -> None:
        nonlocal added
        added = 0
        for entry in batch:
            added += execute(_INSERT, _values(entry))

    if batch:
        database.write(work)
    return added


def newest(database: Database, limit: int, key: str | None = None) -> list[Entry]:
    """The last `limit` entries by their time, newest first; of one key's id where it is given. Raises Unavailable."""
    where, values = ("", ()) if key is None else (" WHERE key = ?", (key,))
    rows = database.rows(f"{_SELECT}{where} ORDER BY at DESC LIMIT ?", (*values, limit))
    return [_entry(row) for row in rows]


def of_id(database: Database, entry_id: str) -> Entry | None:
    """The entry of an id; None where there is none. Raises Unavailable."""
    rows = database.rows(f"{_SELECT} WHERE id = ?", (entry_id,))
    return _entry(rows[0]) if rows else None


def storable(entry: Entry) -> Entry:
    """The entry itself, nearly always. A model's name is a client's text, a count is an upstream's number."""
    if _is_plain(entry):
        return entry
    changes: dict[str, Any] = {}
    for name, value in zip(_COLUMNS, _values_of(entry), strict=True):
        if isinstance(value, str):
            if len(value) > _LONGEST_TEXT or not value.isprintable():
                changes[name] = _plain_text(value)
        elif isinstance(value, int | float) and not (isfinite(value) and abs(value) <= _LARGEST):
            changes[name] = 0 if name in ("at", "seconds", "status", "masked") else None
    return replace(entry, **changes) if changes else entry


def _is_plain(entry: Entry) -> bool:
    """Whether nothing of an entry can be odd: what is asked of every one, at a third of the price of the loop."""
    texts = f"{entry.id}{entry.key}{entry.route}{entry.asked}{entry.served}"  # the other texts are ours
    counts = (entry.prompt_tokens or 0, entry.completion_tokens or 0, entry.our_tokens or 0)
    amounts = (entry.at, entry.seconds, entry.first_token_s or 0.0, entry.money or 0.0)
    return (
        len(texts) <= _LONGEST_TEXT and texts.isprintable() and 0 <= min(counts) <= max(counts) <= _LARGEST
        and min(amounts) >= 0 and sum(amounts) <= _LARGEST
    )  # fmt: skip


def _values(entry: Entry) -> list[Any]:
    return [int(value) if isinstance(value, bool) else value for value in _values_of(entry)]


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**(values | {"cached": bool(values["cached"])}))


def _plain_text(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:_LONGEST_TEXT])
    return shown + ("…" if len(text) > _LONGEST_TEXT else "")
