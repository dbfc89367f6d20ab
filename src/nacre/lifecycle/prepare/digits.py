"""`data.digits`: the handwritten digits that scikit-learn carries, as rows for a kernel that reads images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from nacre.data.report import DropReport
from nacre.data.rows import Row, canonical
from nacre.data.split import SPLITS, SplitConfig, Stratification, split_of
from nacre.data.write import JsonlWriter, write_json
from nacre.lazy import require
from nacre.progress import Scalar
from nacre.recipe.stage import Work, stage

# The set's grey levels run from 0 to 16.
WHITE = 16


@dataclass(frozen=True)
class DigitsConfig:
    """`split` by the pixels themselves, so that equal images never straddle it."""

    split: SplitConfig = field(default_factory=lambda: SplitConfig({"train": 0.8, "valid": 0.1, "test": 0.1}))


@stage("data.digits", produces="dataset")
def digits(config: DigitsConfig, work: Work) -> dict[str, Scalar]:
    """Makes a dataset artifact of 1,797 digits: rows `{"pixels", "label"}`, pixels (8, 8) from 0 to 1.

    JSON lines like every dataset: with a channel axis added, a batch of rows is the kernel's (B, 1, 8, 8). The values
    are sixteenths, which floats hold exactly.
    """
    report, spread = DropReport(), Stratification()
    tally = report.step("read")
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(JsonlWriter(work.out / f"{name}.jsonl"))
            for name in SPLITS
            if config.split.ratios.get(name)
        }
        for row in digit_rows():
            name = split_of(canonical({"pixels": row["pixels"]}), config.split)
            tally.leave(size=tally.enter(row))
            spread.add(name, row["label"])
            writers[name].write(row)
    rows = {name: writer.n_rows for name, writer in writers.items()}
    write_json(work.out / "labels.json", [str(digit) for digit in range(10)])
    content = {"task": "image", "rows": rows, "labels": spread.to_dict(), "dropped": report.to_dict()}
    write_json(work.out / "report.json", content)
    work.declare(licence="CC-BY-4.0", note="UCI optical recognition of handwritten digits, as carried by scikit-learn")
    return {**{f"{name}_rows": count for name, count in rows.items()}, "classes": 10}


def digit_rows() -> Iterator[Row]:
    """The digits in scikit-learn's order. Needs scikit-learn (extra `evaluate`)."""
    data = require("sklearn.datasets").load_digits()
    for image, label in zip(data.images, data.target, strict=True):
        yield {"pixels": (image / WHITE).tolist(), "label": str(int(label))}
