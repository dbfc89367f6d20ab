"""The work of `data.chat`: one pass over the source, held-out splits first, so that training never has their texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.data.chat.formats import Conversation, Judged, Kind, Pair, RowReader
from nacre.data.chat.messages import BadRow
from nacre.data.normal import normal
from nacre.data.read import read_located
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row, digest64, n_bytes
from nacre.data.split import SPLITS, SplitConfig, split_of
from nacre.data.write import JsonlWriter, write_json
from nacre.errors import DataError
from nacre.lifecycle.prepare.chat import ChatConfig
from nacre.lifecycle.prepare.pipeline import without_paths
from nacre.lifecycle.prepare.sources import SourceFile, first_row, source_files
from nacre.progress import Scalar
from nacre.recipe.stage import Work

_KINDS: dict[str, Kind] = {
    "conversations": "conversations",
    "pairs": "preference pairs",
    "judged": "judged answers",
}
_PLACEHOLDER = re.compile(r"\{\{\s*\w+\s*\}\}")


@dataclass(frozen=True)
class Look:
    """What the first rows tell: the files by split, the kind, each file's format, and whether the splits are theirs."""

    files: list[SourceFile]
    kind: Kind
    formats: list[str]
    own_splits: bool


def look_at(config: ChatConfig, source: Path) -> Look:
    """Reads the first row of every file. Raises DataError naming the format it looks like and what it lacks."""
    files, kind, formats = source_files(source), _KINDS.get(config.kind), list[str]()
    for file in files:
        place, row = first_row(file, config.read)
        reader = RowReader(kind or "auto")
        try:
            reader.read(row)
        except BadRow:
            pass  # one bad row: it is counted, or raised, with the others
        except DataError as error:
            raise DataError(f"{place}: {error.message}", remedy=error.remedy) from error
        assert reader.format is not None
        kind = kind or _resolved(reader)
        formats.append(reader.format.name)
    named = {file.split for file in files} - {None}
    if config.splits == "source" and not named:
        raise DataError(
            f"{source} has no files named train, valid or test", remedy="splits: ratio, or name the files so"
        )
    assert kind is not None
    return Look(files, kind, formats, len(named) > 1 if config.splits == "auto" else config.splits == "source")


def _resolved(reader: RowReader) -> Kind:
    assert reader.kind != "auto"
    return reader.kind


def run(config: ChatConfig, work: Work) -> dict[str, Scalar]:
    """Writes the artifact into `work.out`; returns rows by split, rows dropped, and turns."""
    look, report = look_at(config, work.inputs["source"]), DropReport(config.n_samples)
    writers = {name: JsonlWriter(work.out / f"{name}.jsonl") for name in SPLITS}
    turns = 0
    with writers["train"], writers["valid"], writers["test"]:
        for name, row in _placed(config, look, report):
            writers[name].write(row)
            turns += len(row["messages"])
    counts = {name: writer.n_rows for name, writer in writers.items() if writer.n_rows}
    for name in SPLITS:
        if name not in counts:
            (work.out / f"{name}.jsonl").unlink()
    if "train" not in counts:
        raise DataError(
            f"no training rows are left:\n{report.table(samples=False)}", remedy="mend the rows, or loosen the config"
        )
    content = {
        "task": "chat",
        "kind": look.kind,
        "formats": look.formats,
        "splits": "source" if look.own_splits else "ratio",
        "rows": counts,
        "turns": turns,
        "dropped": without_paths(report.to_dict(), work.inputs),
    }
    write_json(work.out / "report.json", content)
    for step in report.steps.values():
        if step.rows_dropped:
            work.progress.note("dropped", step=step.name, **{why: event.count for why, event in step.dropped.items()})
        if step.noted:
            work.progress.note("noted", step=step.name, **{what: event.count for what, event in step.noted.items()})
    rows: dict[str, Scalar] = {f"{name}_rows": count for name, count in counts.items()}
    return rows | {"dropped": report.rows_dropped, "turns": turns}


def _placed(config: ChatConfig, look: Look, report: DropReport) -> Iterator[tuple[str, Row]]:
    """(split, row), without duplicates, within the limits. Files that are held out come first."""
    seen, taken = _Seen(report.step("duplicates")), Counter[str]()
    over = report.step("limit")
    has_valid = any(file.split == "valid" for file in look.files)
    carved = SplitConfig({"train": 1 - config.valid_share, "valid": config.valid_share}, salt=config.split.salt)
    order = {"test": 0, "valid": 1, "train": 2}
    for file in sorted(look.files, key=lambda file: order[file.split or "train"]):
        for row in _rows(file, config, look.kind, report):
            if config.duplicates == "remove" and seen.has(row):
                continue
            name = (file.split or "train") if look.own_splits else split_of(_asked(row), config.split)
            if look.own_splits and name == "train" and config.valid_share and not has_valid:
                name = split_of(_asked(row), carved)
            if name in config.limit:
                size = over.enter(row)
                if taken[name] >= config.limit[name]:
                    over.drop(f"over the limit of {config.limit[name]:,} rows")
                    continue
                over.leave(size=size)
            taken[name] += 1
            yield name, row


def _rows(file: SourceFile, config: ChatConfig, kind: Kind, report: DropReport) -> Iterator[Row]:
    reader, step = RowReader(kind, config.fill), report.step("read as a chat")
    for place, raw in read_located(file.path, config.read, report):
        step.enter(raw)
        try:
            read = reader.read(raw)
        except BadRow as error:
            if config.bad_rows == "raise":
                raise DataError(f"{place}: {error.message}", remedy=error.remedy) from error
            step.drop(error.message, str(raw), str(place))
            continue
        except DataError as error:
            raise DataError(f"{place}: {error.message}", remedy=error.remedy) from error
        row = _with_system(read, config.system).row()
        if config.fill and (left := _PLACEHOLDER.search(str(row))):
            step.note(f"a placeholder that fill does not name: {left.group()}", where=str(place))
        step.leave(row)
        yield row
    reader.check_fill()


def _with_system(read: Conversation | Pair | Judged, text: str | None) -> Conversation | Pair | Judged:
    if text is not None and read.messages[0]["role"] != "system":
        read.messages.insert(0, {"role": "system", "content": text})
    return read


@dataclass
class _Seen:
    """Rows by the normal form of all their texts."""

    step: Step
    digests: set[int] = field(default_factory=set)

    def has(self, row: Row) -> bool:
        size = self.step.enter(size=n_bytes(row))
        digest = digest64(normal(_texts(row)))
        if digest in self.digests:
            self.step.drop("the same texts as an earlier row", str(row))
            return True
        self.digests.add(digest)
        self.step.leave(size=size)
        return False


def _texts(row: Row) -> str:
    sides = [str(row.get(name, "")) for name in ("chosen", "rejected", "answer", "good")]
    return "\n".join([*(f"{one['role']}\t{one['content']}\t{_calls(one)}" for one in row["messages"]), *sides])


def _asked(row: Row) -> str:
    """What decides the split: everything that is not an answer, so that no prompt is in two splits."""
    return normal("\n".join(one["content"] for one in row["messages"] if one["role"] in ("user", "tool")))


def _calls(message: dict[str, Any]) -> str:
    return str(message.get("tool_calls") or "")
