"""Test rows and what was recorded about a model: the borders at which an evaluation can be told to be impossible."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.data.read import read
from nacre.errors import DataError, closest
from nacre.lineage import record
from nacre.lineage.digest import RECORD_NAME

Row = dict[str, Any]


def read_rows(data: Path, split: str, limit: int | None = None) -> list[Row]:
    """The rows of a file, or of `split` of a dataset folder. DataError when there are none."""
    path = data
    if data.is_dir():
        found = {file.name.partition(".")[0]: file for file in sorted(data.iterdir()) if ".jsonl" in file.name}
        if split not in found:
            raise DataError(f"{data} has no split {split!r}", remedy=closest(split, found))
        path = found[split]
    elif not data.is_file():
        raise DataError(f"{data} does not exist", remedy="give a data file or the folder of a dataset artifact")
    rows = list(read(path))[:limit]
    if not rows:
        raise DataError(f"{path} holds no row to measure on", remedy="give a file with at least one row")
    return rows


def field_of(rows: Sequence[Row], name: str, source: Path) -> list[Any]:
    """One field of every row; DataError names the first row without it."""
    for number, row in enumerate(rows, 1):
        if row.get(name) is None:
            raise DataError(
                f"{source}, row {number}: the field {name!r} is missing (fields: {', '.join(sorted(row)) or 'none'})",
                remedy=f"give every row of the test data a {name!r}",
            )
    return [row[name] for row in rows]


@dataclass(frozen=True)
class Labels:
    """True classes by number. `names` are the model's classes, then those that only the test data has."""

    names: tuple[str, ...]
    true: tuple[int, ...]
    known: int

    @property
    def unseen(self) -> int:
        """Rows whose label the model was not trained on."""
        return sum(index >= self.known for index in self.true)

    @property
    def unseen_names(self) -> tuple[str, ...]:
        """Their labels."""
        return self.names[self.known :]

    @property
    def absent_names(self) -> tuple[str, ...]:
        """Classes of the model that the test data lacks."""
        there = set(self.true)
        return tuple(name for index, name in enumerate(self.names[: self.known]) if index not in there)


def index_labels(labels: Sequence[Any], known: Sequence[str]) -> Labels:
    """Numbers for labels. DataError when the test data has one class only, where no score says anything."""
    texts = [str(label) for label in labels]
    found = set(texts)
    if len(found) < 2:
        raise DataError(
            f"every test row has the label {next(iter(found))!r}: with one class nothing can be told apart",
            remedy="give test data that holds at least two classes",
        )
    if not found & set(known):
        raise DataError(
            f"the test labels ({', '.join(sorted(found)[:3])} ...) and the model's "
            f"({', '.join(list(known)[:3])} ...) have nothing in common",
            remedy="evaluate on the data that the model was tuned for, or map its labels",
        )
    names = (*known, *sorted(found - set(known)))
    number = {name: index for index, name in enumerate(names)}
    return Labels(names, tuple(number[text] for text in texts), len(known))


def row_id(row: Row, number: int) -> str:
    """The row's own id, else its place in the file, from 1."""
    return str(row.get("id", number))


def recorded_config(folder: Path) -> Mapping[str, Any]:
    """The config of the stage that made the artifact; empty for a folder without a lineage record."""
    return record.read(folder).config if (folder / RECORD_NAME).is_file() else {}


def recorded_objective(folder: Path) -> Mapping[str, Any]:
    """The objective's settings (context, normalisation) that the model was trained with; empty when not recorded."""
    found = recorded_config(folder).get("objective", {})
    return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class Baseline:
    """Predictions of another system on the same rows."""

    name: str
    predicted: tuple[str, ...]


def baseline_predictions(folder: Path, rows: Sequence[Row], key: str = "text") -> Baseline:
    """Reads `predictions.jsonl`; DataError unless it covers exactly these rows in this order."""
    path = folder / "predictions.jsonl"
    if not path.is_file():
        raise DataError(f"{folder} holds no predictions.jsonl", remedy="give a predictions artifact or a report")
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    same = len(found) == len(rows) and all(one.get(key) == row.get(key) for one, row in zip(found, rows, strict=True))
    if not same:
        raise DataError(
            f"{path} holds predictions of {len(found)} rows that are not the {len(rows)} test rows",
            remedy="make the baseline predict the same split of the same data",
        )
    return Baseline(found[0].get("system", "baseline"), tuple(str(one["predicted"]) for one in found))
