"""The gateway's books after a soak, against what the mock upstream billed and what the clients saw."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.lifecycle.serve.contract import Allowance

PRICE = {"input_per_million": 10.0, "output_per_million": 30.0}
_WINDOW_S = 59.0  # of a rate per minute; a second less, since an entry's time is when its request came, not was counted
_LOGS = ("nacre.log",)
_TROUBLE = ("Traceback", "was never retrieved", "was never awaited", "Task was destroyed")


@dataclass
class Seen:
    """What the clients saw: how requests ended, by the gateway's id where the client had it, and how often."""

    ends: Counter[str] = field(default_factory=Counter)
    by_id: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    sent: int = 0
    left_early: int = 0  # without having seen an id: the gateway may have an entry for them, or not

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.ends + other.ends, self.by_id | other.by_id, self.lost + other.lost,
            self.sent + other.sent, self.left_early + other.left_early,
        )  # fmt: skip


@dataclass(frozen=True)
class Books:
    """`folder` holds the database, the logs and the metrics; `billed` is what the mock tells under /billed.

    `secrets` and `marks` (words of every prompt) may be in none of them.
    """

    folder: Path
    secrets: Mapping[str, str]
    marks: tuple[str, ...]
    billed: Mapping[str, Any]
    seen: Seen
    allowances: Mapping[str, Allowance]

    def problems(self) -> list[str]:
        """What is wrong in the books, in words; nothing where all is well."""
        rows = _rows(self.folder / "gateway.db")
        return [
            *_ends(self.seen, rows), *_sums(self.billed, rows), *_budgets(self, rows), *_rates(self.allowances, rows),
            *_concurrency(self), *_texts(self),
        ]  # fmt: skip

    def unknown(self) -> int:
        """Answers that the mock billed and whose count the gateway never saw, because the client had left."""
        rows = _rows(self.folder / "gateway.db")
        return sum(1 for one in self.billed["by_id"] if one in rows and rows[one]["counted_by"] != "upstream")


def _rows(database: Path) -> dict[str, sqlite3.Row]:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT entries.*, keys.name AS key_name FROM entries LEFT JOIN keys ON keys.id = entries.key"
        return {row["id"]: row for row in connection.execute(query)}


def _ends(seen: Seen, rows: Mapping[str, sqlite3.Row]) -> Iterator[str]:
    """Each request that a client saw end has an entry that says the same; what is over are those who left early."""
    for one, end in seen.by_id.items():
        row = rows.get(one)
        if row is None:
            yield f"{one} ({end}) is not in the ledger"
        elif not _agree(end, row["outcome"], row["status"]):
            yield f"{one}: the client saw {end!r}, the ledger says {row['outcome']} {row['status']}"
    more = len(rows) - len(seen.by_id)
    if not 0 <= more <= seen.left_early:
        yield f"{more} entries are of nobody who saw an answer; {seen.left_early} clients left before one"


def _agree(end: str, outcome: str, status: int) -> bool:
    if end == "left":
        return outcome in ("client_left", "ok", "cut_short")  # what the kernel holds may be the whole answer
    if end == "ok":
        return outcome == "ok"
    if end == "error event":
        return outcome == "cut_short"
    return end == f"error {status}"


def _sums(billed: Mapping[str, Any], rows: Mapping[str, sqlite3.Row]) -> Iterator[str]:
    """Every answer that the mock billed, and no other, with its tokens; only who left may be uncounted."""
    for one in billed["twice"]:
        yield f"{one} was asked and billed twice"
    for one, counts in billed["by_id"].items():
        row = rows.get(one)
        if row is None:
            yield f"{one} was billed and is not in the ledger"
        elif row["counted_by"] == "upstream":
            if [row["prompt_tokens"], row["completion_tokens"]] != counts:
                yield f"{one}: billed {counts}, entered {row['prompt_tokens']} and {row['completion_tokens']}"
        elif row["outcome"] != "client_left":
            yield f"{one} was billed, and its entry ({row['outcome']}) has no count"
    for one, row in rows.items():
        if row["counted_by"] == "upstream" and one not in billed["by_id"]:
            yield f"{one} is entered with a count, and was not billed"


def _budgets(books: Books, rows: Mapping[str, sqlite3.Row]) -> Iterator[str]:
    """What the mock billed to each key, known to the gateway or not, within the key's budget.

    Nothing is given for requests in flight: every request here uses less than what is reserved for it.
    """
    money: dict[str, float] = defaultdict(float)
    tokens: Counter[str] = Counter()
    for one, (prompt, completion) in books.billed["by_id"].items():
        if one in rows:
            name = rows[one]["key_name"]
            tokens[name] += prompt + completion
            money[name] += (prompt * PRICE["input_per_million"] + completion * PRICE["output_per_million"]) / 1e6
    for name, allowance in books.allowances.items():
        if allowance.money is not None and money[name] > allowance.money * (1 + 1e-9):
            yield f"key {name} was billed {money[name]:.6f}, its budget is {allowance.money}"
        if allowance.tokens is not None and tokens[name] > allowance.tokens:
            yield f"key {name} was billed {tokens[name]} tokens, its budget is {allowance.tokens}"
        if allowance.money is not None or allowance.tokens is not None:
            refused = any(row["key_name"] == name and row["status"] == 402 for row in rows.values())
            if not refused:
                yield f"key {name} never came to the end of its budget: the run says nothing about budgets"


def _rates(allowances: Mapping[str, Allowance], rows: Mapping[str, sqlite3.Row]) -> Iterator[str]:
    for name, allowance in allowances.items():
        limit = allowance.requests_per_minute
        if limit is None:
            continue
        mine = (row for row in rows.values() if row["key_name"] == name)
        times = sorted(row["at"] for row in mine if row["outcome"] != "refused")
        for at, later in zip(times, times[limit:], strict=False):
            if later - at < _WINDOW_S:
                yield f"key {name} had {limit + 1} requests within {later - at:.1f} s"
                break


def _concurrency(books: Books) -> Iterator[str]:
    """What the mock saw under way at once of each key. It says something only where the limit was reached."""
    for name, allowance in books.allowances.items():
        most = books.billed["most"].get(name, 0)
        if allowance.concurrent is not None and most > allowance.concurrent:
            yield f"key {name} had {most} requests under way at once, its limit is {allowance.concurrent}"
        if allowance.concurrent is not None and most < min(allowance.concurrent, 4):
            yield f"key {name} had {most} requests under way at most: the run says nothing about its limit"


def _texts(books: Books) -> Iterator[str]:
    for path in sorted(books.folder.rglob("*")):
        if not path.is_file() or path.name == "secrets.json":
            continue
        data = path.read_bytes()
        for name, secret in books.secrets.items():
            if secret.encode() in data:
                yield f"the secret of {name} is in {path.name}"
        for mark in books.marks:
            if mark.encode() in data:
                yield f"a prompt ({mark}) is in {path.name}"
        if path.name in _LOGS:
            yield from (f"{path.name} has {word!r}" for word in _TROUBLE if word.encode() in data)
