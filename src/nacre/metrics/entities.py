"""Entity scores from tag sequences: an entity counts only when its type and both ends agree (CoNLL-2003 definition).

Two ways to read entities from tags, both named in the result:
- `conll`: as the conlleval script and seqeval's default do: an I-X that follows nothing of type X opens an entity.
- `strict`: only well-formed entities count (B-X I-X*, or B I* E and S in BIOES); a stray I-X is no entity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nacre.errors import DataError
from nacre.metrics.classification import safe_ratio

Scheme = Literal["bio", "bioes"]
Reading = Literal["conll", "strict"]

# BMES and BILOU write the same four roles with other letters.
_ROLES = {"O": "O", "B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}


class Entity(NamedTuple):
    """`kind` from token `start` to token `end`, the end excluded."""

    kind: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """`B-PER` -> ("B", "PER"); M, L and U are read as I, E and S. DataError for anything else."""
    role, separator, kind = tag.partition("-")
    if role not in _ROLES or (role == "O") != (not separator) or (separator and not kind):
        raise DataError(
            f"the tag {tag!r} is neither O nor ROLE-TYPE", remedy="write tags as O, B-PER, I-PER, E-PER, S-PER"
        )
    return _ROLES[role], kind


def scheme_of(sequences: Iterable[Sequence[str]]) -> Scheme:
    """`bioes` as soon as an end or a single tag is used (BIOES, BMES, BILOU), else `bio`."""
    roles = {split_tag(tag)[0] for tags in sequences for tag in tags}
    return "bioes" if roles & {"E", "S"} else "bio"


def read_entities(tags: Sequence[str], scheme: Scheme = "bio", reading: Reading = "conll") -> list[Entity]:
    """The entities of one sentence, in order."""
    pairs = [split_tag(tag) for tag in tags]
    if reading == "strict":
        return _read_strict(pairs, scheme)
    return _read_conll(pairs)


def entities_of(text: str, spans: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[dict[str, Any]]:
    """The entities of a text whose tokens are its `spans`: type, text, start and end in characters."""
    return [
        {
            "type": one.kind,
            "text": text[spans[one.start][0] : spans[one.end - 1][1]],
            "start": spans[one.start][0],
            "end": spans[one.end - 1][1],
        }
        for one in read_entities(tags)
    ]


def _read_conll(pairs: Sequence[tuple[str, str]]) -> list[Entity]:
    found: list[Entity] = []
    start, open_kind, previous = 0, "", "O"
    for position, (role, kind) in enumerate([*pairs, ("O", "")]):
        continues = role in ("I", "E") and kind == open_kind and previous in ("B", "I")
        if open_kind and not continues:
            found.append(Entity(open_kind, start, position))
            open_kind = ""
        if role != "O" and not continues:
            start, open_kind = position, kind
        previous = role
    return found


def _read_strict(pairs: Sequence[tuple[str, str]], scheme: Scheme) -> list[Entity]:
    found: list[Entity] = []
    position = 0
    while position < len(pairs):
        role, kind = pairs[position]
        end = position + 1
        if role == "S" and scheme == "bioes":
            found.append(Entity(kind, position, end))
        elif role == "B":
            while end < len(pairs) and pairs[end] == ("I", kind):
                end += 1
            closed = scheme == "bio"
            if scheme == "bioes" and end < len(pairs) and pairs[end] == ("E", kind):
                end, closed = end + 1, True
            if closed:
                found.append(Entity(kind, position, end))
        position = end
    return found


def malformed(sequences: Iterable[Sequence[str]], scheme: Scheme) -> int:
    """How many entities the two readings disagree on: what a tagger without transition rules got wrong in form."""
    return sum(
        len(set(read_entities(tags, scheme, "conll")) ^ set(read_entities(tags, scheme, "strict")))
        for tags in sequences
    )


@dataclass(frozen=True)
class EntityRows:
    """Additive rows (N, 3K) by sentence: hits, predicted and true entities of every kind, for `bootstrap`."""

    rows: NDArray[np.float64]
    kinds: tuple[str, ...]


def entity_rows(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: Scheme | None = None,
    reading: Reading = "conll",
) -> EntityRows:
    """Counts by sentence and kind. DataError when a sentence has another number of tags than its prediction."""
    if len(true) != len(predicted):
        raise DataError(f"{len(true)} sentences, {len(predicted)} predictions", remedy="predict every sentence once")
    scheme = scheme or scheme_of(true)
    counted = []
    for number, (gold_tags, tags) in enumerate(zip(true, predicted, strict=True)):
        if len(gold_tags) != len(tags):
            raise DataError(
                f"sentence {number} has {len(gold_tags)} tags and {len(tags)} predicted ones",
                remedy="predict one tag per token; a truncated sentence needs windows",
            )
        counted.append((set(read_entities(gold_tags, scheme, reading)), set(read_entities(tags, scheme, reading))))
    kinds = tuple(sorted({entity.kind for pair in counted for entities in pair for entity in entities}))
    column = {kind: index for index, kind in enumerate(kinds)}
    rows = np.zeros((len(counted), 3 * len(kinds)))
    for row, (gold, guess) in zip(rows, counted, strict=True):
        for part, entities in enumerate((gold & guess, guess, gold)):
            for entity in entities:
                row[part * len(kinds) + column[entity.kind]] += 1
    return EntityRows(rows, kinds)


def micro_f1_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Micro F1 (R,) from summed entity rows (R, 3K); 0 where there is no entity at all."""
    hits, predicted, true = (part.sum(axis=-1) for part in np.split(sums, 3, axis=-1))
    return safe_ratio(2 * hits, predicted + true)


@dataclass(frozen=True)
class EntityScores:
    """Micro and macro averages, and per kind (precision, recall, F1, support)."""

    precision: float
    recall: float
    f1: float
    macro_f1: float
    per_kind: dict[str, tuple[float, float, float, int]]


def entity_scores(counts: EntityRows) -> EntityScores:
    """Scores of summed rows. The macro mean runs over the kinds that occur as label or prediction."""
    hits, predicted, true = np.split(counts.rows.sum(axis=0), 3)
    precision, recall, f1 = safe_ratio(hits, predicted), safe_ratio(hits, true), safe_ratio(2 * hits, predicted + true)
    total = np.array([hits.sum(), predicted.sum(), true.sum()])
    return EntityScores(
        precision=float(safe_ratio(total[:1], total[1:2])[0]),
        recall=float(safe_ratio(total[:1], total[2:])[0]),
        f1=float(safe_ratio(2 * total[:1], total[1:2] + total[2:])[0]),
        macro_f1=float(f1.mean()) if len(f1) else 0.0,
        per_kind={
            kind: (float(precision[i]), float(recall[i]), float(f1[i]), int(true[i]))
            for i, kind in enumerate(counts.kinds)
        },
    )
