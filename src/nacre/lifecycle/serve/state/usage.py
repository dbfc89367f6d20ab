"""Sums over the ledger: by key, model, day and outcome; what a key has spent; as rows, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nacre.errors import UsageError, closest
from nacre.lifecycle.serve.contract import Entry, Json
from nacre.lifecycle.serve.state.database import Database, Execute

GROUPS = ("key", "model", "day", "outcome")
DISAGREEMENT = 0.02  # of the upstream's count: where ours differs by more, the request is counted as disagreeing

# What one entry adds to each sum
_EACH = {
    "requests": "1",
    "refused": "CASE WHEN outcome = 'refused' THEN 1 ELSE 0 END",
    "cached": "cached",
    "prompt_tokens": "COALESCE(prompt_tokens, 0)",
    "completion_tokens": "COALESCE(completion_tokens, 0)",
    "uncounted": "CASE WHEN prompt_tokens IS NULL AND completion_tokens IS NULL AND cached = 0 "
    "AND outcome NOT IN ('refused', 'upstream_error') THEN 1 ELSE 0 END",
    "disagreeing": "CASE WHEN our_tokens IS NOT NULL AND counted_by = 'upstream' AND "
    "ABS(our_tokens - (COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0))) > "
    f"{DISAGREEMENT} * (COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0)) THEN 1 ELSE 0 END",
    "known_money": "COALESCE(money, 0)",
    "unpriced": "CASE WHEN money IS NULL THEN 1 ELSE 0 END",
    "masked": "masked",
    "seconds": "seconds",
    "estimated_tokens": "COALESCE(estimated_tokens, 0)",
    "estimated_money": "COALESCE(estimated_money, 0)",
}  # fmt: skip
_NAMED = ", ".join(f"{what} AS {name}" for name, what in _EACH.items())
_SUMS = ", ".join(f"SUM({name})" for name in _EACH)
_MODEL = "COALESCE(served, asked)"
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Spent:
    """What a key used in a span of time; where that is not known, what it was estimated to use."""

    tokens: int = 0
    money: float = 0.0


def disagrees(entry: Entry) -> bool:
    """Whether our count of a request's tokens differs from the upstream's by more than 2 % of the upstream's."""
    if entry.our_tokens is None or entry.counted_by != "upstream":
        return False
    theirs = (entry.prompt_tokens or 0) + (entry.completion_tokens or 0)
    return abs(entry.our_tokens - theirs) > DISAGREEMENT * theirs


def sums(
    database: Database, by: Sequence[str], since: float | None = None, until: float | None = None, *,
    key: str | None = None, model: str | None = None,
) -> list[Json]:  # fmt: skip
    """One object per group, in the order of the groups: the groups' names, then counts and sums.

    `tokens` is prompt and completion as far as counted (`uncounted` requests are not in it). `money` is None where any
    request is `unpriced`; `known_money` is the sum of the others. `since` counts, `until` does not (Unix time).
    `key` (an id) and `model` leave out what is not theirs. Raises UsageError for a group that does not exist.
    """
    expressions = {"key": "key", "model": "model", "day": database.day, "outcome": "outcome"}
    for name in by:
        if name not in expressions:
            raise UsageError(f"usage by {name!r}", remedy=closest(name, GROUPS))
    groups = list(dict.fromkeys(by))
    columns = ", ".join([expressions[name] for name in groups] + [_SUMS])
    rows, values = _rows(*_span(since, until, *(("key = ?", (key,)) if key is not None else ())))
    if model is not None:
        rows, values = f"{rows} WHERE model = ?", (*values, model)
    numbers = ", ".join(str(place + 1) for place in range(len(groups)))
    order = f" GROUP BY {numbers} ORDER BY {numbers}" if groups else ""
    found = database.rows(f"SELECT {columns} FROM {rows}{order}", values)
    return [_row(groups, row) for row in found if row[len(groups)]]


def spent(database: Database, key: str, since: float | None = None) -> Spent:
    """Tokens and money of one key since a moment: known, or as its budget was charged when the usage stayed unknown."""
    rows, values = _rows(*_span(since, None, "key = ?", (key,)))
    tokens, money = "prompt_tokens + completion_tokens + estimated_tokens", "known_money + estimated_money"
    used, paid = database.rows(f"SELECT SUM({tokens}), SUM({money}) FROM {rows}", values)[0]
    return Spent(int(used or 0), float(paid or 0.0))


def forget(database: Database, before: float) -> int:
    """Deletes the entries of the whole days (UTC) before a moment; gives their number.

    Their sums by day, key, model and outcome stay, so that no usage and no budget changes; a span that begins or ends
    within such a day takes it by its beginning. One transaction a day: the ledger waits for no longer.
    """
    end, deleted = before // _DAY_S * _DAY_S, 0
    move = (
        f"INSERT INTO past (at, key, model, outcome, {', '.join(_EACH)}) "
        f"SELECT CAST(? AS DOUBLE PRECISION), key, {_MODEL}, outcome, "
        f"{', '.join(f'SUM({what})' for what in _EACH.values())} "
        f"FROM entries WHERE at >= ? AND at < ? GROUP BY key, {_MODEL}, outcome"
    )

    def work(execute: Execute) -> None:
        nonlocal deleted
        if not database.is_local:  # an entry that came between the two statements would be deleted without its sum
            execute("LOCK TABLE entries IN SHARE ROW EXCLUSIVE MODE", ())
        execute(move, (day, day, day + _DAY_S))
        deleted += execute("DELETE FROM entries WHERE at >= ? AND at < ?", (day, day + _DAY_S))

    while (oldest := database.rows("SELECT MIN(at) FROM entries WHERE at < ?", (end,))[0][0]) is not None:
        day = oldest // _DAY_S * _DAY_S
        database.write(work)
    return deleted


_RUNS = "=+-@\t\r\n＝＋－＠"  # Chinese and Japanese spreadsheets run the wide ones as well


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
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ")[:1] in _RUNS and value.strip(" ") else value


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


def _rows(where: str, values: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """What the sums are taken of: every entry, and the sums of the days whose entries were deleted."""
    kept = f"SELECT at, key, {_MODEL} AS model, outcome, {_NAMED} FROM entries{where}"
    past = f"SELECT at, key, model, outcome, {', '.join(_EACH)} FROM past{where}"
    return f"({kept} UNION ALL {past}) AS everything", values * 2


def _row(groups: Sequence[str], values: tuple[Any, ...]) -> Json:
    row: Json = dict(zip(groups, values, strict=False))
    found = dict(zip(_EACH, values[len(groups) :], strict=True))
    for name in _EACH:
        row[name] = float(found[name]) if name in ("known_money", "seconds", "estimated_money") else int(found[name])
    row["tokens"] = row["prompt_tokens"] + row["completion_tokens"]
    row["money"] = None if row["unpriced"] else row["known_money"]
    return row
