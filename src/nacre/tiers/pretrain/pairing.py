"""Pairs of texts that belong together, for a ranker: a query and what answers it, the head of a text and its rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from nacre.errors import DataError
from nacre.tiers.task import Row, Task

LEAST_CHARACTERS = 4  # of either side of a text that is cut in two
_SENTENCE = re.compile(r"(?<=[。！？!?])|(?<=[.;；])(?=\s)|\n+")
_CLAUSE = re.compile(r"(?<=[，,、：:])|\s+")


def answered(task: Task, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """A pair for each relevant text of each query. DataError where the corpus lacks a relevant text."""
    texts = {str(row["id"]): str(row["text"]) for row in task.corpus}
    for row in rows:
        relevant = [str(one) for one in row["relevant"]]
        for one in relevant:
            if one not in texts:
                raise DataError(
                    f"the query {row.get('id', row['query'])!r} names {one!r}, which the corpus lacks",
                    remedy="correct the row's field relevant, or add the text to the corpus",
                )
            yield {"query": row["query"], "positive": texts[one], "positive_id": one, "relevant": relevant}


def of_corpus(corpus: Sequence[Row], left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """A pair for each text of the corpus: its title, else its first sentence, and the rest.

    A text of one sentence is cut at the clause nearest its middle; one that cannot be cut is counted in `left_out`.
    """
    for row in corpus:
        title, text = str(row.get("title") or ""), str(row["text"])
        head, rest = (title, text) if title.strip() else cut(text)
        if len(head.strip()) < LEAST_CHARACTERS or len(rest.strip()) < LEAST_CHARACTERS:
            left_out["texts of the corpus too short to be cut in two"] += 1
            continue
        yield {"query": head.strip(), "positive": rest.strip(), "positive_id": str(row["id"])}


def cut(text: str) -> tuple[str, str]:
    """The first sentence and the rest; of a single sentence two parts of about one length; empty where impossible."""
    first = next((at for at in _borders(_SENTENCE, text) if text[at:].strip() and text[:at].strip()), None)
    if first is not None:
        return text[:first], text[first:]
    clauses = [at for at in _borders(_CLAUSE, text) if text[at:].strip() and text[:at].strip()]
    if not clauses:
        return "", ""
    middle = min(clauses, key=lambda at: (abs(2 * at - len(text)), at))
    return text[:middle], text[middle:]


def _borders(pattern: re.Pattern[str], text: str) -> Iterator[int]:
    return (found.end() for found in pattern.finditer(text))
