"""What a data set holds: its first rows as text, bounded in rows and bytes, and what was dropped on the way to it.

A row may be a megabyte, a file a terabyte, and a report anything at all.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_ROWS, MOST_FILES, LONGEST = 3, 6, 600
_SHORT = 200
_TEXTS = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".csv", ".tsv")


@dataclass(frozen=True)
class Sample:
    """The first rows of one file; a row ends with an ellipsis where it is longer. `problem` says why there are none."""

    file: str
    rows: Sequence[str] = ()
    problem: str = ""


def samples(folder: Path, files: Sequence[str]) -> list[Sample]:
    """What the first text files among `files` (paths within the folder) begin with."""
    texts = [
        one for one in files if one.endswith(_TEXTS) and not Path(one).name.lower().startswith(("readme", "licen"))
    ]
    return [_sample(folder, one) for one in texts[:MOST_FILES]]


def _sample(folder: Path, name: str) -> Sample:
    path = folder / name
    try:
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            return Sample(name, [row for _ in range(MOST_ROWS) if (row := _line(file.readline, 4 * LONGEST))])
    except (OSError, EOFError, zlib.error) as error:
        return Sample(name, problem=str(error))


def _line(readline: object, most: int) -> str:
    """One line, at most `most` bytes of it; the rest of a longer one is passed over, as far as it is not too long."""
    assert callable(readline)
    read: bytes = readline(most)
    rest = read
    for _ in range(64):
        if rest.endswith(b"\n") or not rest:
            break
        rest = readline(1 << 16)
    text = read.decode("utf-8", "replace").rstrip("\r\n")
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


@dataclass(frozen=True)
class Event:
    """What a step did to some rows: `verb` is `dropped`, `changed` or `noted`; `sample` is one of them, shortened."""

    verb: str
    count: Any
    reason: str
    sample: str


@dataclass(frozen=True)
class Step:
    """One step of preparing the data."""

    name: str
    rows_in: Any
    rows_out: Any
    events: Sequence[Event]


def steps_of(report: Mapping[str, Any] | None) -> list[Step]:
    """The steps that a data set's `report.json` tells of; what has another shape than ours is passed over."""
    dropped = report.get("dropped") if report else None
    steps = dropped.get("steps") if isinstance(dropped, Mapping) else None
    return [
        Step(str(one.get("step", "?")), one.get("rows_in"), one.get("rows_out"), list(_events(one)))
        for one in (steps if isinstance(steps, list) else [])
        if isinstance(one, Mapping)
    ]


def _events(step: Mapping[str, Any]) -> Iterator[Event]:
    for verb in ("dropped", "changed", "noted"):
        found = step.get(verb)
        for reason, event in found.items() if isinstance(found, Mapping) else ():
            told = event if isinstance(event, Mapping) else {"count": event}
            given = told.get("samples")
            first = given[0] if isinstance(given, list) and given else ""
            text = " ".join(map(str, first.values())) if isinstance(first, Mapping) else str(first)
            yield Event(
                verb, told.get("count"), reason, text if len(text) <= LONGEST // 3 else text[: LONGEST // 3] + "…"
            )
