"""`data.stdlib`: the Python standard library of the running interpreter, real text that every machine has."""

from __future__ import annotations

import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from nacre.data.report import DropReport
from nacre.data.rows import Row, n_bytes
from nacre.data.split import SPLITS, SplitConfig, split_of
from nacre.data.write import JsonlWriter, write_json
from nacre.errors import ConfigError, DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Work, stage


@dataclass(frozen=True)
class StdlibConfig:
    """`exclude`: names of files and folders left out wherever they stand (tests are most of the bytes).

    A file's split is decided by its path, so it stays when Python is updated; `salt` draws another split. Files shorter
    or longer than the limits are dropped and counted. `python` is the interpreter's version: it stands in the config so
    that another interpreter makes another artifact; do not set it.
    """

    exclude: tuple[str, ...] = (
        "test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "site-packages", "dist-packages",
        "__pycache__", "ensurepip", "pydoc_data",
    )  # fmt: skip
    split: SplitConfig = field(default_factory=SplitConfig)
    min_characters: int = 200
    max_characters: int = 400_000
    python: str = field(default_factory=platform.python_version)


def check(config: StdlibConfig, inputs: object) -> None:
    """Raises ConfigError for another interpreter's version, DataError where there is no source."""
    if config.python != platform.python_version():
        raise ConfigError(
            f"python {config.python} is asked for, this is {platform.python_version()}",
            remedy="leave python out of the config, or run with that interpreter",
        )
    if not (library() / "os.py").is_file():
        raise DataError(
            f"{library()} holds no Python source", remedy="use an interpreter that is installed with its source"
        )


def library() -> Path:
    """The folder of the standard library's source."""
    return Path(sysconfig.get_paths()["stdlib"])


@stage("data.stdlib", produces="dataset", check=check)
def stdlib(config: StdlibConfig, work: Work) -> dict[str, Scalar]:
    """Makes a dataset artifact of the standard library's source: a row `{"text", "path"}` per file, split by file."""
    check(config, {})
    report = DropReport()
    size = 0
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(JsonlWriter(work.out / f"{name}.jsonl"))
            for name in SPLITS
            if config.split.ratios.get(name)
        }
        for number, row in enumerate(source_rows(library(), config, report), start=1):
            writers[split_of(row["path"], config.split)].write(row)
            size += n_bytes(row)
            work.progress.update(number, files=number)
    rows = {name: writer.n_rows for name, writer in writers.items()}
    for name, count in rows.items():
        if count == 0:
            raise DataError(
                f"the split {name} got none of {sum(rows.values())} files", remedy=f"a larger share of {name}"
            )
    write_json(
        work.out / "report.json", {"task": "text", "python": config.python, "rows": rows, "dropped": report.to_dict()}
    )
    work.declare(licence="PSF-2.0", note=f"standard library of Python {config.python}")
    return {**{f"{name}_rows": count for name, count in rows.items()}, "bytes": size, "dropped": report.rows_dropped}


def source_rows(folder: Path, config: StdlibConfig, report: DropReport) -> Iterator[Row]:
    """One row per source file in the order of the paths, decoded as its own encoding line says, lines ended by \\n."""
    tally = report.step("read")
    for path in sorted(_sources(folder, set(config.exclude)), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        try:
            with tokenize.open(path) as file:
                text = file.read()
        except (SyntaxError, UnicodeDecodeError, OSError) as error:
            tally.enter()
            tally.drop("not readable as Python source", str(error).replace(str(folder), ""), name)
            continue
        row = {"text": text, "path": name}
        size = tally.enter(row)
        if len(text) < config.min_characters:
            tally.drop(f"shorter than {config.min_characters:,} characters", where=name)
        elif len(text) > config.max_characters:
            tally.drop(f"longer than {config.max_characters:,} characters", where=name)
        else:
            tally.leave(size=size)
            yield row


def _sources(folder: Path, exclude: set[str]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in exclude and not name.startswith((".", "config-"))]
        yield from (Path(parent, name) for name in files if name.endswith(".py") and name not in exclude)
