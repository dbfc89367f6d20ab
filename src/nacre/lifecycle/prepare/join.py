"""`data.join`: the texts of several dataset artifacts as one, for tokenizers and pretraining."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nacre.data.normal import normal
from nacre.data.read import read
from nacre.data.rows import Row, content
from nacre.data.write import write_json, write_jsonl
from nacre.errors import DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

INPUTS = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class JoinConfig:
    """`splits` to join. A test split stays out, and a text that any input holds out for test is removed from the
    others, so that what is trained on the product has seen no test text. `keep_fields`: whole rows, not texts alone.
    """

    splits: tuple[str, ...] = ("train", "valid")
    keep_fields: bool = False


@stage(
    "data.join",
    produces="dataset",
    inputs={name: Input("dataset", "made_from", optional=index > 0) for index, name in enumerate(INPUTS)},
)
def join(config: JoinConfig, work: Work) -> dict[str, Scalar]:
    """Joins the texts of up to four dataset artifacts, split by split, without the texts that one of them tests on."""
    folders = [work.inputs[name] for name in INPUTS if name in work.inputs]
    tested = {normal(content(row)) for folder in folders for row in _rows(folder, "test")}
    counts: dict[str, Mapping[str, int]] = {}
    metrics: dict[str, Scalar] = {}
    for split in config.splits:
        tally: Counter[str] = Counter()
        written = write_jsonl(work.out / f"{split}.jsonl", _joined(folders, split, tested, config, tally))
        if not written:
            if split == "train":
                raise DataError("the inputs hold no training text", remedy="give dataset artifacts with a train split")
            (work.out / f"{split}.jsonl").unlink()
        counts[split] = tally
        metrics[f"{split}_rows"] = written
    removed = sum(tally["removed: held out for test"] for tally in counts.values())
    write_json(work.out / "report.json", {"task": "text", "rows": counts, "inputs": len(folders)})
    return {**metrics, "removed_test_texts": removed}


def _joined(
    folders: list[Path], split: str, tested: set[str], config: JoinConfig, tally: Counter[str]
) -> Iterator[Row]:
    for number, folder in enumerate(folders, 1):
        for row in _rows(folder, split):
            text = content(row)
            if normal(text) in tested:
                tally["removed: held out for test"] += 1
                continue
            tally[f"from input {number}"] += 1
            yield row if config.keep_fields else {"text": text}


def _rows(folder: Path, split: str) -> Iterator[Row]:
    file = folder / f"{split}.jsonl"
    if file.is_file():
        yield from read(file)
