"""A gazetteer: the entities of training rows as a list, found again by longest match.

An entry is kept where, over the training rows, its words were an entity of its majority type often enough. How often is
chosen on validation rows, as is whether case counts.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.data.write import write_jsonl
from nacre.errors import CheckpointError
from nacre.metrics.entities import Entity, read_entities
from nacre.tiers.task import Row

FILE = "gazetteer.jsonl"
Words = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """Words that were entities of `kind` in `precision` of their `count` occurrences; `source`: a row that has it."""

    words: Words
    kind: str
    precision: float
    count: int
    source: str


@dataclass(frozen=True)
class Found:
    """An entity in a row, and the entry that it was found by."""

    entity: Entity
    entry: Entry


class Gazetteer:
    """Entries by their words; `fold` makes upper and lower case the same."""

    def __init__(self, entries: Sequence[Entry], *, fold: bool = False) -> None:
        self.entries, self.fold = tuple(entries), fold
        self._by_words = {one.words: one for one in entries}
        self._longest = max((len(one.words) for one in entries), default=0)

    @classmethod
    def learn(cls, rows: Sequence[Row], *, fold: bool = False) -> Gazetteer:
        """All entities of the rows, with how often their words were what."""
        kinds: dict[Words, Counter[str]] = defaultdict(Counter)
        sources: dict[Words, str] = {}
        for number, row in enumerate(rows):
            tokens = _folded(row["tokens"], fold)
            for one in read_entities(row["tags"]):
                words = tokens[one.start : one.end]
                kinds[words][one.kind] += 1
                sources.setdefault(words, str(row.get("id", number)))
        occurrences = _occurrences(rows, kinds, fold)
        entries = []
        for words in sorted(kinds):
            kind, n = min(kinds[words].items(), key=lambda pair: (-pair[1], pair[0]))
            count = max(occurrences[words], sum(kinds[words].values()))
            entries.append(Entry(words, kind, n / count, count, sources[words]))
        return cls(entries, fold=fold)

    def above(self, precision: float) -> Gazetteer:
        """The entries of at least this precision."""
        return Gazetteer([one for one in self.entries if one.precision >= precision], fold=self.fold)

    def find(self, tokens: Sequence[str]) -> list[Found]:
        """Entities of a row, by longest match from the left."""
        words, found, at = _folded(tokens, self.fold), list[Found](), 0
        while at < len(words):
            entry = next(
                (
                    self._by_words[words[at : at + n]]
                    for n in range(min(self._longest, len(words) - at), 0, -1)
                    if words[at : at + n] in self._by_words
                ),
                None,
            )
            if entry is None:
                at += 1
                continue
            found.append(Found(Entity(entry.kind, at, at + len(entry.words)), entry))
            at += len(entry.words)
        return found

    def save(self, folder: Path) -> None:
        """Writes `gazetteer.jsonl`: readable, and to be edited by hand."""
        write_jsonl(folder / FILE, map(_plain, self.entries))

    @classmethod
    def load(cls, folder: Path, *, fold: bool) -> Gazetteer:
        """What `save` wrote. Raises CheckpointError where it is missing or damaged."""
        try:
            rows = [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]
            return cls([Entry(**{**row, "words": tuple(row["words"])}) for row in rows], fold=fold)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / FILE} is damaged: {error}", remedy="make the rung again") from error


def _plain(entry: Entry) -> dict[str, Any]:
    return {**vars(entry), "words": list(entry.words), "precision": round(entry.precision, 6)}


def _folded(tokens: Sequence[str], fold: bool) -> Words:
    return tuple(one.casefold() for one in tokens) if fold else tuple(tokens)


def _occurrences(rows: Sequence[Row], known: Mapping[Words, Any], fold: bool) -> Counter[Words]:
    """How often each of the known word sequences stands in the rows, entity or not."""
    lengths = sorted({len(words) for words in known})

    def sequences() -> Iterator[Words]:
        for row in rows:
            tokens = _folded(row["tokens"], fold)
            for n in lengths:
                yield from (tokens[at : at + n] for at in range(len(tokens) - n + 1))

    return Counter(words for words in sequences() if words in known)
