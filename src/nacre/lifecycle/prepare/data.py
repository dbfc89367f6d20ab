"""`data.prepare`: any source of rows becomes a dataset artifact: mapped, cleaned, deduplicated, split, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nacre.data.clean import CleanConfig
from nacre.data.decontaminate import DecontaminateConfig
from nacre.data.dedup import DedupConfig
from nacre.data.masking.rows import MaskConfig
from nacre.data.read import ReadConfig
from nacre.data.scrub import ScrubConfig
from nacre.data.split import SPLITS, SplitConfig
from nacre.errors import ConfigError, closest
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

Task = Literal["auto", "text", "classify", "tag", "translate", "chat"]
# The fields that a task's rows must have.
TASK_FIELDS: Mapping[str, tuple[str, ...]] = {
    "tag": ("tokens", "tags"),
    "translate": ("source", "target"),
    "classify": ("text", "label"),
    "chat": ("messages",),
    "text": ("text",),
}
ROW_FIELDS = ("text", "label", "tokens", "tags", "source", "target", "messages")


@dataclass(frozen=True)
class PrepareConfig:
    """What becomes of the source's rows, in this order.

    `fields`: our name -> the source's name of a field, such as {source: en, target: zh}; other fields are kept.
    `where`: only rows whose field has this value, or one of these values. `task`: which fields every row must have;
    `auto` takes the first row's. `mask` takes personal data out before anything else can show it; off unless
    given, as is `scrub`. `repeated_lines`: lines in this many rows are removed.
    `splits`: `source` keeps the source's own (files named train, valid, test), `field` takes `split_field`'s values,
    `ratio` splits by content as `split` says; `auto` takes the first of these that the source has, and reports it.
    `valid_share`: this share of the training rows, by content, becomes valid where the source has none.
    `duplicates`: `remove` them (as `dedup` says) or `keep_together` in one split. `overlaps`: rows that the source has
    in two of its splits are removed from train, and from valid where test has them, or only reported.
    `limit`: at most so many rows of a split, chosen by content. `against` (an input) is decontaminated from train.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str | bool | int | tuple[str, ...]] = field(default_factory=dict)
    task: Task = "auto"
    read: ReadConfig = field(default_factory=ReadConfig)
    mask: MaskConfig | None = None
    clean: CleanConfig = field(default_factory=CleanConfig)
    scrub: ScrubConfig | None = None
    repeated_lines: int | None = None
    dedup: DedupConfig = field(default_factory=DedupConfig)
    duplicates: Literal["remove", "keep_together"] = "remove"
    splits: Literal["auto", "source", "field", "ratio"] = "auto"
    split_field: str = "split"
    split: SplitConfig = field(default_factory=SplitConfig)
    valid_share: float = 0.0
    overlaps: Literal["remove", "report"] = "remove"
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    limit: Mapping[str, int] = field(default_factory=dict)
    n_samples: int = 5

    def __post_init__(self) -> None:
        for name in self.fields:
            if name not in ROW_FIELDS:
                raise ConfigError(f"fields: a row has no field {name!r}", remedy=closest(name, ROW_FIELDS))
        for name in self.limit:
            if name not in SPLITS:
                raise ConfigError(f"limit: unknown split {name!r}", remedy=closest(name, SPLITS))
        if not 0 <= self.valid_share < 1:
            raise ConfigError(f"valid_share {self.valid_share} is no share", remedy="0 <= valid_share < 1")
        if self.repeated_lines is not None and self.repeated_lines < 2:
            raise ConfigError("repeated_lines below 2 removes every line", remedy="such as 20")


def check(config: PrepareConfig, inputs: Mapping[str, Path]) -> None:
    """Reads the first row of every file of the source; raises DataError for what can be known from it."""
    from nacre.lifecycle.prepare.pipeline import look_at

    if "source" in inputs:
        look_at(config, inputs["source"])


@stage(
    "data.prepare",
    produces="dataset",
    inputs={
        "source": Input("dataset", "made_from"),
        "against": Input("dataset", "evaluated_on", optional=True),
        "against_too": Input("dataset", "evaluated_on", optional=True),
    },
    check=check,
)
def prepare(config: PrepareConfig, work: Work) -> dict[str, Scalar]:
    """Makes a dataset artifact of a source: reads, cleans, deduplicates, splits, and reports every row it drops."""
    from nacre.lifecycle.prepare.pipeline import run

    return run(config, work)
