"""Sums over the ledger: by key, model, day and outcome; what a key has spent; as rows, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nacre.errors import UsageError, closest
from nacre.lifecycle.serve.contract import Entry, Json
from nacre.lifecycle.serve.state.database import Database

GROUPS = ("key", "model", "day", "outcome")
DISAGREEMENT = 0.02  # of the upstream's count: where ours differs by more, the request is counted as disagreeing

_SUMS = {
    "requests": "COUNT(*)",
    "refused": "SUM(CASE WHEN outcome = 'refused' THEN 1 ELSE 0 END)",
    "cached": "SUM(cached)",
    "prompt_tokens": "SUM(COALESCE(prompt_tokens, 0))",
    "completion_tokens": "SUM(COALESCE(completion_tokens, 0))",
    "uncounted": "SUM(CASE WHEN prompt_tokens IS NULL AND completion_tokens IS NULL AND cached = 0 "
    "AND outcome NOT IN ('refused', 'upstream_error') THEN 1 ELSE 0 END)",
    "disagreeing": "SUM(CASE WHEN our_tokens IS NOT NULL AND counted_by = 'upstream' AND "
    "ABS(our_tokens - (COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0))) > "
    f"{DISAGREEMENT} * (COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0)) THEN 1 ELSE 0 END)",
    "known_money": "COALESCE(SUM(money), 0)",
    "unpriced": "SUM(CASE WHEN money IS NULL THEN 1 ELSE 0 END)",
    "masked": "SUM(masked)",
    "seconds": "SUM(seconds)",
}  # fmt: skip


@dataclass(frozen=True)
class Spent:
    """What a key used in a span of time, as far as it is known."""

    tokens: int = 0
    money: float = 0.0


def disagrees(entry: Entry) -> bool:
    """Whether our count of a request's tokens differs from the upstream's by more than 2 % of the upstream's."""
    if entry.our_tokens is None or entry.counted_by != "upstream":
        return False
    theirs = (entry.prompt_tokens or 0) + (entry.completion_tokens or 0)
    return abs(entry.our_tokens - theirs) > DISAGREEMENT * theirs


def sums(database: Database, by: Sequence[str], since: float | None = None, until: float | None = None) -> list[Json]:
    """One object per group, in the order of the groups: the groups' names, then counts and sums.

    `tokens` is prompt and completion as far as counted (`uncounted` requests are not in it). `money` is None where any
    request is `unpriced`; `known_money` is the sum of the others. `since` counts, `until` does not (Unix time).
    Raises UsageError for a group that does not exist.
    """
    expressions = {"key": "key", "model": "COALESCE(served, asked)", "day": database.day, "outcome": "outcome"}
    for name in by:
        if name not in expressions:
            raise UsageError(f"usage by {name!r}", remedy=closest(name, GROUPS))
    groups = list(dict.fromkeys(by))
    columns = [expressions[name] for name in groups] + list(_SUMS.values())
    where, values = _span(since, until)
    numbers = ", ".join(str(place + 1) for place in range(len(groups)))
    order = f" GROUP BY {numbers} ORDER BY {numbers}" if groups else ""
    rows = database.rows(f"SELECT {', '.join(columns)} FROM entries{where}{order}", values)
    return [_row(groups, row) for row in rows if row[len(groups)]]


def spent(database: Database, key: str, since: float | None = None) -> Spent:
    """Tokens and known money of one key since a moment. Requests without a count or a price add nothing."""
    where, values = _span(since, None, "key = ?", (key,))
    sql = f"SELECT {_SUMS['prompt_tokens']}, {_SUMS['completion_tokens']}, {_SUMS['known_money']} FROM entries{where}"
    read, written, money = database.rows(sql, values)[0]
    return Spent(int(read or 0) + int(written or 0), float(money or 0.0))


def csv_text(rows: Sequence[Json]) -> str:
    """Rows as CSV with a head; unknown money is an empty cell. A cell that a spreadsheet would run is quoted with '."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _inert(value: Any) -> Any:
    """A model's name is a client's text: `=cmd()` must not become a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _span(
    since: float | None, until: float | None, condition: str = "", first: tuple[Any, ...] = ()
) -> tuple[str, tuple[Any, ...]]:
    conditions = [condition] if condition else []
    values = [*first]
    for sign, moment in ((">=", since), ("<", until)):
        if moment is not None:
            conditions.append(f"at {sign} ?")
            values.append(moment)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else "", tuple(values))


def _row(groups: Sequence[str], values: tuple[Any, ...]) -> Json:
    row: Json = dict(zip(groups, values, strict=False))
    found = dict(zip(_SUMS, values[len(groups) :], strict=True))
    for name in _SUMS:
        row[name] = float(found[name]) if name in ("known_money", "seconds") else int(found[name])
    row["tokens"] = row["prompt_tokens"] + row["completion_tokens"]
    row["money"] = None if row["unpriced"] else row["known_money"]
    return row
