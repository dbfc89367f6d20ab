"""Full text in SQLite FTS5, ranked by BM25, over terms of our own (`terms.py`), so that Chinese is found as well.

The index holds no text: a row's number leads to the passage. Terms hold letters and digits only and are quoted, so no
query can be read as syntax.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from nacre.tiers.retrieval.terms import query_terms, terms

HEAD_WEIGHT = 1.5  # a term in the title or the headings counts as this many in the text
_TABLE = "words"


def create(database: sqlite3.Connection) -> None:
    """The table of terms. The ascii tokenizer splits our terms at blanks and leaves everything else as it is."""
    database.execute(
        f"CREATE VIRTUAL TABLE {_TABLE} USING fts5(head, body, content='', tokenize='ascii', columnsize=1)"
    )


def add(database: sqlite3.Connection, rows: Iterable[tuple[int, str, str]]) -> None:
    """Adds (number, title and headings, text)."""
    database.executemany(
        f"INSERT INTO {_TABLE}(rowid, head, body) VALUES (?, ?, ?)",
        ((number, " ".join(terms(head)), " ".join(terms(body))) for number, head, body in rows),
    )


def finish(database: sqlite3.Connection) -> None:
    """Merges the index into one piece: smaller, faster, and the same bytes for the same rows."""
    database.execute(f"INSERT INTO {_TABLE}({_TABLE}) VALUES ('optimize')")


def search(
    database: sqlite3.Connection, query: str, k: int, condition: str = "", values: Sequence[str | int] = ()
) -> list[tuple[int, float]]:
    """(number, BM25 score) of the best `k` rows, the highest first; `condition` is SQL over `rowid` with `values`.

    Any term of the query may match. A query without a letter or digit matches nothing.
    """
    match = expression(query)
    if not match:
        return []
    where = f" AND {condition}" if condition else ""
    found = database.execute(
        f"SELECT rowid, -bm25({_TABLE}, {HEAD_WEIGHT}, 1.0) AS score FROM {_TABLE} "
        f"WHERE {_TABLE} MATCH ?{where} ORDER BY score DESC, rowid LIMIT ?",
        (match, *values, k),
    )
    return [(int(number), float(score)) for number, score in found]


def expression(query: str) -> str:
    """The FTS5 expression of a query: its terms, quoted, any of which may match."""
    whole, prefixes = query_terms(query)
    return " OR ".join([f'"{term}"' for term in whole] + [f'"{term}"*' for term in prefixes])
