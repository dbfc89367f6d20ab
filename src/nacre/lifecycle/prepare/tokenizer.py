"""The stage `tokenizer.train`: from a data set to a tokenizer, with a report on text that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.data.read import data_files, read
from nacre.data.rows import Row, content, digest64
from nacre.data.tokenizer_config import TokenizerConfig, check_config
from nacre.data.write import write_json
from nacre.errors import DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer

HELD_OUT_ONE_IN = 50  # texts kept from training for the report, where the data has no validation split
MOST_HELD_OUT = 5_000


@dataclass(frozen=True)
class TrainTokenizerConfig(TokenizerConfig):
    """`TokenizerConfig`, and where the text is.

    split: the file to train on (`train.jsonl`); every file where there is none of this name. fields: row fields with
    text; by default text, tokens, source and target, or messages. held_out: the split that is measured.
    """

    split: str = "train"
    held_out: str = "valid"
    fields: tuple[str, ...] = ()


def check(config: TrainTokenizerConfig, inputs: Mapping[str, Path]) -> None:
    """The choices go together, each file's first row has the fields, and a compared tokenizer can be read."""
    check_config(config)
    if "data" in inputs:
        for file in _files(inputs["data"], config.split):
            if not any(_texts(next(iter(read(file))), config.fields)):
                raise DataError(f"the first row of {file} has no text", remedy="name the fields (config: fields)")
    if "compare" in inputs:
        from nacre.data.tokenizer import Tokenizer

        Tokenizer.load(inputs["compare"])


@stage(
    "tokenizer.train",
    produces="tokenizer",
    inputs={
        "data": Input("dataset", "trained_on"),
        "compare": Input("any", "evaluates", optional=True),
    },
    check=check,
)
def train_tokenizer(config: TrainTokenizerConfig, work: Work) -> dict[str, Scalar]:
    """Trains a tokenizer and reports bytes per token by language on held-out text."""
    from nacre.data.tokenizer import Tokenizer, train
    from nacre.data.tokenizer_report import report

    source = _Source(work.inputs["data"], config)
    plain = {one.name: getattr(config, one.name) for one in fields(TokenizerConfig)}
    tokenizer = train(source.training(), TokenizerConfig(**plain), work.out, progress=work.progress)
    held_out = source.held_out()
    compared = Tokenizer.load(work.inputs["compare"]) if "compare" in work.inputs else None
    found = report(tokenizer, held_out, compared)
    found["held_out"] = {"from": source.held_out_from, "texts": len(held_out), "left_out": source.n_beyond}
    write_json(work.out / "report.json", found)
    if len(tokenizer) < config.vocab_size:
        work.declare(note=f"the data supports {len(tokenizer):,} tokens of the {config.vocab_size:,} asked for")
    return _metrics(tokenizer, found["fit"])


def _metrics(tokenizer: Tokenizer, fit: Mapping[str, Mapping[str, Scalar]]) -> dict[str, Scalar]:
    metrics: dict[str, Scalar] = {"vocabulary": len(tokenizer)}
    for language, values in fit.items():
        suffix = "" if language == "all" else f"_{language}"
        metrics[f"bytes_per_token{suffix}"] = values["bytes_per_token"]
    if "all" in fit:
        metrics["unknown_rate"] = fit["all"]["unknown_rate"]
        metrics["exact_rate"] = fit["all"]["exact_rate"]
    return metrics


class _Source:
    """Texts of the training split, and others that are held out of it."""

    def __init__(self, path: Path, config: TrainTokenizerConfig) -> None:
        self._files = _files(path, config.split)
        self._fields = config.fields
        valid = _named(path, config.held_out)
        self._valid = [file for file in valid if file not in self._files]
        self.held_out_from = config.held_out if self._valid else f"one text in {HELD_OUT_ONE_IN}, by hash"
        self.n_beyond = 0

    def training(self) -> Iterator[str]:
        for text in self._all(self._files):
            if self._valid or digest64(text) % HELD_OUT_ONE_IN:
                yield text

    def held_out(self) -> list[str]:
        """At most MOST_HELD_OUT texts; `n_beyond` counts the others."""
        texts: list[str] = []
        for text in self._all(self._valid or self._files):
            if self._valid or not digest64(text) % HELD_OUT_ONE_IN:
                if len(texts) < MOST_HELD_OUT:
                    texts.append(text)
                else:
                    self.n_beyond += 1
        return texts

    def _all(self, files: list[Path]) -> Iterator[str]:
        for file in files:
            for row in read(file):
                yield from _texts(row, self._fields)


def _files(path: Path, split: str) -> list[Path]:
    return _named(path, split) or data_files(path)


def _named(path: Path, split: str) -> list[Path]:
    """Data files of a folder whose name without endings is `split`."""
    return [] if path.is_file() else [file for file in data_files(path) if file.name.partition(".")[0] == split]


def _texts(row: Row, names: tuple[str, ...]) -> Iterator[str]:
    """The texts of a row, each of a pair or dialogue on its own."""
    if names:
        yield from (content(row, (name,)) for name in names)
    elif "text" not in row and "source" in row and "target" in row:
        yield from (content(row, ("source",)), content(row, ("target",)))
    elif "messages" in row:
        yield from (message["content"] for message in row["messages"])
    else:
        yield content(row)
