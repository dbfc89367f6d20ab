"""The text that a task is pretrained on: its training rows, its unlabelled texts, a named corpus; never rows to judge.

Texts that are, word for word, a validation text are left out of the unlabelled ones and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from nacre.data.read import data_files, read
from nacre.data.rows import content, content_fields
from nacre.errors import DataError
from nacre.tiers.task import Row, Task, join_tokens, targets_of, text_of

# Splits that nobody may learn from, by the first part of a file's name.
HELD_OUT = ("valid", "test", "dev", "validation")


@dataclass
class TaskTexts:
    """Every text of a task that may be learnt from; iterating reads them anew, in the same order.

    `left_out` counts what was not taken, by reason; it is filled by the first pass.
    """

    task: Task
    corpus: Path | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[str]:
        yield from self._labelled()
        yield from self.unlabelled()

    def unlabelled(self) -> Iterator[str]:
        """Texts without answers: of the task and of the corpus."""
        self.left_out.clear()
        held = {_plain(text) for row in self.task.valid for text in texts_of_row(row)}
        for text in chain(self._own(), self._corpus()):
            if not text.strip():
                self.left_out["texts that are empty"] += 1
            elif _plain(text) in held:
                self.left_out["texts that are validation rows"] += 1
            else:
                yield text

    def _labelled(self) -> Iterator[str]:
        for row in self.task.train:
            yield from texts_of_row(row)
        if self.task.kind == "rank":
            yield from (str(row["text"]) for row in self.task.corpus)

    def _own(self) -> Iterator[str]:
        if self.task.unlabelled is not None:
            yield from (str(row["text"]) for row in read(self.task.unlabelled))

    def _corpus(self) -> Iterator[str]:
        if self.corpus is None:
            return
        files = learnable_files(self.corpus)
        if not files:
            raise DataError(f"{self.corpus} holds no text to learn from", remedy="give the artifact of a data.* stage")
        for file in files:
            for row in read(file):
                yield from texts_of_row(row)


@dataclass(frozen=True)
class Measured:
    """What there is to learn from: texts, UTF-8 bytes, distinct characters."""

    texts: int
    n_bytes: int
    distinct: int

    @classmethod
    def of(cls, texts: TaskTexts) -> Measured:
        n, size, characters = 0, 0, set[str]()
        for text in texts:
            n, size = n + 1, size + len(text.encode("utf-8", "surrogatepass"))
            characters.update(text)
        if not size:
            raise DataError(f"the task {texts.task.name} has no text to learn from", remedy="give training rows")
        return cls(n, size, len(characters))


def learnable_files(folder: Path) -> list[Path]:
    """The data files of a dataset artifact without those of held-out splits."""
    return [file for file in data_files(folder) if file.name.partition(".")[0] not in HELD_OUT]


def texts_of_row(row: Row) -> Iterator[str]:
    """The texts of a row, each on its own: a pair, a dialogue and several targets are several texts."""
    plain: Mapping[str, Any] = row
    if "query" in plain:
        yield text_of(row, "rank")
    elif "source" in plain and ("target" in plain or "targets" in plain):
        yield str(plain["source"])
        yield from targets_of(row)
    elif "messages" in plain:
        yield from (str(message["content"]) for message in plain["messages"])
    elif "tokens" in plain:
        yield join_tokens(plain["tokens"])
    elif "text" in plain:
        yield str(plain["text"])
        if plain.get("text_pair") is not None:
            yield str(plain["text_pair"])
    else:
        yield content(dict(row), content_fields(dict(row)))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
