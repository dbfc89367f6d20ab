"""A task as solvers see it: what is asked, the rows to learn from, never the rows to be judged on.

On disk a task is a dataset artifact: `task.json`, `train.jsonl`, `valid.jsonl`, and for `rank` `corpus.jsonl`; for
tasks with classes `labels.json`. Rows have an `id` and the fields of their kind (see `metrics/quality.py`). The test
rows lie in an artifact of their own, which no solver is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nacre.data.read import read
from nacre.errors import DataError
from nacre.metrics.quality import Kind, Quality

Row = Mapping[str, Any]
TASK_FILE = "task.json"


@dataclass(frozen=True)
class Task:
    """What is asked. `about` is the instruction in a sentence or two; `descriptions` say what a label means.

    `language`: the main language of the texts (`en`, `zh`, ...), `target_language` that of written answers.
    """

    name: str
    kind: Kind
    about: str
    metric: str
    language: str
    folder: Path
    target_language: str = ""
    labels: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()

    @property
    def quality(self) -> Quality:
        """How answers are judged."""
        return Quality(self.kind, self.metric, self.target_language or self.language)

    @cached_property
    def train(self) -> Sequence[Row]:
        return self._rows("train")

    @cached_property
    def valid(self) -> Sequence[Row]:
        return self._rows("valid")

    @cached_property
    def corpus(self) -> Sequence[Row]:
        """What `rank` ranks: rows with `id` and `text`."""
        return self._rows("corpus")

    @property
    def unlabelled(self) -> Path | None:
        """A file of texts without answers (`text`), to pretrain on; None where the task has none."""
        file = self.folder / "unlabelled.jsonl"
        return file if file.is_file() else None

    def _rows(self, split: str) -> Sequence[Row]:
        file = self.folder / f"{split}.jsonl"
        return tuple(read(file)) if file.is_file() else ()


def load(folder: Path) -> Task:
    """The task of an artifact made by `task.prepare`. Raises DataError where `task.json` is missing."""
    file = folder / TASK_FILE
    if not file.is_file():
        raise DataError(f"{folder} holds no {TASK_FILE}", remedy="give the artifact of the stage task.prepare")
    plain = json.loads(file.read_text(encoding="utf-8"))
    known = {key: plain[key] for key in ("name", "kind", "about", "metric", "language", "target_language")}
    return Task(
        **known,
        folder=folder,
        labels=tuple(plain["labels"]),
        descriptions=plain["descriptions"],
        languages=tuple(plain["languages"]),
    )


def text_of(row: Row, kind: Kind) -> str:
    """What a row asks, as one text: its text, its tokens joined as its script joins them, its source, or its query."""
    if kind == "tag":
        return join_tokens(row["tokens"])
    return str(row[{"classify": "text", "generate": "source", "rank": "query"}[kind]])


def targets_of(row: Row) -> list[str]:
    """The written answers of a row of the kind `generate`, the first one best."""
    return [str(one) for one in row["targets"]] if row.get("targets") else [str(row["target"])]


def join_tokens(tokens: Sequence[str]) -> str:
    """Tokens as running text: blanks between words, none beside a Han character."""
    from nacre.data.rows import is_han

    pieces: list[str] = []
    for token in tokens:
        if pieces and not (is_han(pieces[-1][-1:]) or is_han(token[:1])):
            pieces.append(" ")
        pieces.append(token)
    return "".join(pieces)
