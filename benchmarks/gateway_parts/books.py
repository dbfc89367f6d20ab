"""The gateway's books after a soak, against what the mock upstream billed and what the clients saw."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.lifecycle.serve.contract import Allowance

_DEAREST = 47 * 10e-6 + 512 * 30e-6  # money of one request at most: its prompt, and the answer that is reserved for it
_MOST_TOKENS = 47 + 28


@dataclass(frozen=True)
class Books:
    """`folder` holds the database and the logs; `billed` is what the mock tells, `sent` what the clients sent."""

    folder: Path
    secrets: Mapping[str, str]
    mark: str
    billed: Mapping[str, Any]
    sent: int


def problems_of(books: Books, allowances: Mapping[str, Allowance], in_flight: Counter[str]) -> list[str]:
    """What is wrong in the books, in words; nothing where all is well."""
    rows = _rows(books.folder / "gateway.db")
    return [*_sums(books, rows), *_budgets(rows, allowances, in_flight), *_secrets(books)]


def _rows(database: Path) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT entries.*, keys.name AS key_name FROM entries LEFT JOIN keys ON keys.id = entries.key"
        return connection.execute(query).fetchall()


def _sums(books: Books, rows: list[sqlite3.Row]) -> Iterator[str]:
    if len(rows) != books.sent:
        yield f"{books.sent} requests were sent, the ledger has {len(rows)}"
    good = [row for row in rows if row["counted_by"] == "upstream"]
    for what, ours in (
        ("requests", len(good)),
        ("prompt", sum(row["prompt_tokens"] or 0 for row in good)),
        ("completion", sum(row["completion_tokens"] or 0 for row in good)),
    ):
        if ours != books.billed[what]:
            yield f"{what}: the ledger says {ours}, the mock billed {books.billed[what]}"


def _budgets(rows: list[sqlite3.Row], allowances: Mapping[str, Allowance], in_flight: Counter[str]) -> Iterator[str]:
    by_key: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        by_key.setdefault(row["key_name"], []).append(row)
    for name, allowance in allowances.items():
        mine = by_key.get(name, [])
        money = sum(row["money"] or 0.0 for row in mine)
        tokens = sum((row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0) for row in mine)
        if allowance.money is not None and money > allowance.money + in_flight[name] * _DEAREST:
            yield f"key {name} spent {money:.6f} of {allowance.money}"
        if allowance.tokens is not None and tokens > allowance.tokens + in_flight[name] * _MOST_TOKENS:
            yield f"key {name} used {tokens} of {allowance.tokens} tokens"


def _secrets(books: Books) -> Iterator[str]:
    for path in sorted(books.folder.rglob("*")):
        if not path.is_file() or path.name == "secrets.json":
            continue
        data = path.read_bytes()
        for name, secret in books.secrets.items():
            if secret.encode() in data:
                yield f"the secret of {name} is in {path.name}"
        if books.mark.encode() in data:
            yield f"a prompt is in {path.name}"
