"""What a file teaches, seen before it is trained: a row token by token, or the whole file in figures. Imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nacre.data.chat.formats import Conversation, Pair, RowReader
from nacre.data.chat.messages import BadRow, Message
from nacre.data.chat.template import ChatTemplate, Turned
from nacre.data.rows import Row
from nacre.errors import DataError
from nacre.train.objectives.config_align import SftConfig
from nacre.train.objectives.sft import TAUGHT, TOKENS, Sft


@dataclass(frozen=True)
class Sequence:
    """One sequence as it is trained. `part`: `chosen` or `rejected` of a pair, else empty."""

    part: str
    turned: Turned

    def to_dict(self) -> dict[str, Any]:
        ids, trained = self.turned.ids.tolist(), self.turned.trained.tolist()
        tokens = [
            {"id": index, "text": text, "trained": taught}
            for index, text, taught in zip(ids, self.turned.spelled, trained, strict=True)
        ]
        return {"part": self.part, "n_tokens": len(ids), "n_trained": sum(trained[1:]), "tokens": tokens}


@dataclass(frozen=True)
class Preview:
    """One row: its format, its turns, and its sequences; `lost` counts what was cut or dropped, and why."""

    row: int
    format: str
    template: str
    turns: list[Message]
    sequences: list[Sequence]
    lost: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        plain = {"row": self.row, "format": self.format, "template": self.template, "turns": self.turns}
        return plain | {"sequences": [one.to_dict() for one in self.sequences], "lost": self.lost}


@dataclass
class Statistics:
    """A file in figures: rows, sequences, tokens, lengths, and what is lost by reason."""

    template: str
    context: int
    format: str = ""
    rows: int = 0
    lengths: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """`trained_share`: of all tokens; lengths are those after cutting."""
        total, taught = sum(self.lengths), sum(self.answers)
        return {
            "format": self.format,
            "template": self.template,
            "context": self.context,
            "rows": self.rows,
            "sequences": len(self.lengths),
            "tokens": total,
            "trained": taught,
            "trained_share": round(taught / total, 4) if total else None,
            "length": _quantiles(self.lengths),
            "trained_per_sequence": _quantiles(self.answers),
            "dropped": self.dropped,
            "truncated": self.truncated,
            "noted": self.noted,
        }


def preview(rows: Iterable[Row], number: int, template: ChatTemplate, config: SftConfig, *, pairs: bool) -> Preview:
    """Row `number` (from 1) as it is trained. DataError where there is none, or it would be dropped."""
    source, count = iter(rows), 0
    row = next(source, None)
    while row is not None and (count := count + 1) < number:
        row = next(source, None)
    if row is None:
        raise DataError(f"there is no row {number:,}: the data has {count:,}", remedy=f"give --row 1 to {count}")
    objective, reader = Sft(template, config), _reader(pairs)
    try:
        parts = list(_parts(reader.read(row)))
    except BadRow as error:
        raise DataError(f"row {number:,} is not trained: {error.message}", remedy=error.remedy) from error
    sequences = [Sequence(part, turned) for part, talk in parts for turned in objective.sequences(talk)]
    lost = Counter(objective.dropped) + objective.truncated
    lost += Counter({what: times for what, times in objective.noted.items() if what not in (TOKENS, TAUGHT)})
    assert reader.format is not None
    return Preview(number, reader.format.name, template.name, parts[0][1].messages, sequences, dict(lost))


def statistics(rows: Iterable[Row], template: ChatTemplate, config: SftConfig, *, pairs: bool) -> Statistics:
    """The whole file in figures."""
    objective, reader = Sft(template, config), _reader(pairs)
    found = Statistics(template.name, config.context)
    for row in rows:
        found.rows += 1
        try:
            parts = list(_parts(reader.read(row)))
        except BadRow as error:
            objective.dropped[error.message] += 1
            continue
        for _, talk in parts:
            for turned in objective.sequences(talk):
                found.lengths.append(len(turned.ids))
                found.answers.append(int(turned.trained[1:].sum()))
    found.format = reader.format.name if reader.format else ""
    found.dropped, found.truncated = dict(objective.dropped), dict(+objective.truncated)
    found.noted = {what: times for what, times in objective.noted.items() if what not in (TOKENS, TAUGHT)}
    return found


def _reader(pairs: bool) -> RowReader:
    return RowReader("preference pairs" if pairs else "conversations")


def _parts(read: Any) -> Iterator[tuple[str, Conversation]]:
    if not isinstance(read, Pair):
        yield "", read
        return
    for part in ("chosen", "rejected"):
        answer = {"role": "assistant", "content": getattr(read, part)}
        yield part, Conversation([*read.messages, answer], read.tools)


def _quantiles(values: list[int]) -> dict[str, int] | None:
    if not values:
        return None
    at = {"min": 0, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: int(np.percentile(values, share, method="nearest")) for name, share in at.items()}
