"""Stages that make a task ready for its solvers: `task.prepare` without the test rows, `task.test` with nothing else.

Both get the same config and inputs, and both compute the same split of the rows; each writes its own half of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError, DataError, closest
from nacre.metrics.quality import Kind, Quality
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

# By kind: the fields of a row, and what a source calls them unless the task says otherwise.
FIELDS: Mapping[Kind, Mapping[str, str]] = {
    "classify": {"text": "text", "label": "label"},
    "tag": {"tokens": "tokens", "tags": "tags"},
    "generate": {"source": "source", "target": "target"},
    "rank": {"query": "query", "relevant": "relevant"},
}
# Fields that a row may have besides; `targets` stands for `target` where a source gives several references.
OPTIONAL_FIELDS: Mapping[Kind, Mapping[str, str]] = {
    "classify": {"id": "id", "lang": "lang", "split": "split"},
    "tag": {"id": "id", "lang": "lang", "split": "split"},
    "generate": {"id": "id", "lang": "lang", "split": "split", "targets": "targets"},
    "rank": {"id": "id", "lang": "lang", "split": "split", "corpus_id": "id", "corpus_text": "text"},
}


@dataclass(frozen=True)
class Splits:
    """`valid`: the share of the training rows held out where no validation rows are given. `test`: the share of the
    rows of `all` that is tested on where they name no split; None never cuts one. `seed` of cuts and of row order."""

    valid: float = 0.1
    test: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in (("valid", self.valid), ("test", self.test)):
            if share is not None and not 0 < share < 1:
                raise ConfigError(f"the share {name} is {share}", remedy="a share above 0 and below 1, such as 0.1")
        if self.valid + (self.test or 0.0) >= 1:
            raise ConfigError("the shares of valid and test leave nothing to train on", remedy="such as 0.1 and 0.2")


@dataclass(frozen=True)
class Limit:
    """At most so many rows of a split: the first ones after the shuffle by the seed."""

    train: int | None = None
    valid: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        for name, most in vars(self).items():
            if most is not None and most < 1:
                raise ConfigError(f"limit of {name}: {most}", remedy="give 1 or more, or leave it out")


@dataclass(frozen=True)
class Duplicates:
    """`near`: what becomes of training and validation rows that resemble a row of a later split (estimated Jaccard
    similarity of their shingles from `threshold`): only counted, or excluded too. Exact ones are always excluded."""

    near: Literal["count", "exclude"] = "count"
    threshold: float = 0.8

    def __post_init__(self) -> None:
        if not 0.2 <= self.threshold <= 1:
            raise ConfigError(f"duplicates: threshold {self.threshold} is out of range", remedy="0.2 to 1")


@dataclass(frozen=True)
class TaskConfig:
    """What a task file says about a task and its rows; the rows themselves come as inputs. `fields`: ours -> theirs."""

    name: str
    kind: Kind
    about: str
    metric: str
    language: str
    languages: tuple[str, ...] = ()
    target_language: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    splits: Splits = field(default_factory=Splits)
    limit: Limit = field(default_factory=Limit)
    duplicates: Duplicates = field(default_factory=Duplicates)

    def __post_init__(self) -> None:
        Quality(self.kind, self.metric, self.target_language or self.language)
        known = {**FIELDS[self.kind], **OPTIONAL_FIELDS[self.kind]}
        for name in self.fields:
            if name not in known:
                raise ConfigError(
                    f"fields: a row of the kind {self.kind} has no field {name!r}", remedy=closest(name, known)
                )

    def theirs(self, name: str) -> str:
        """What the source calls a field of ours."""
        return self.fields.get(name) or {**FIELDS[self.kind], **OPTIONAL_FIELDS[self.kind]}[name]


def check(config: TaskConfig, inputs: Mapping[str, Path]) -> None:
    """Raises DataError for what is missing among the inputs."""
    if "all" in inputs:
        if others := sorted({"train", "valid", "test"} & set(inputs)):
            raise DataError(f"{config.name}: both all and {others[0]} are given", remedy="give all, or the splits")
    else:
        if "test" not in inputs:
            raise DataError(
                f"{config.name} has no test rows", remedy="data: {train: ..., test: ...}, rows never trained on"
            )
        if "train" not in inputs:
            raise DataError(f"{config.name} has no training rows", remedy="data: {train: ..., test: ...}")
    if config.kind == "rank" and "corpus" not in inputs:
        raise DataError(
            f"{config.name} ranks, but has no corpus", remedy="data: {corpus: REF}, rows with an id and a text"
        )


@stage(
    "task.prepare",
    produces="dataset",
    inputs={
        "train": Input("dataset", "made_from", optional=True),
        "valid": Input("dataset", "made_from", optional=True),
        "test": Input("dataset", "evaluated_on", optional=True),
        "all": Input("dataset", "made_from", optional=True),
        "corpus": Input("dataset", "made_from", optional=True),
        "unlabelled": Input("dataset", "made_from", optional=True),
    },
    check=check,
)
def prepare(config: TaskConfig, work: Work) -> Mapping[str, Scalar]:
    """Makes what solvers see of a task: rows to learn from and to choose by, without anything of the test rows."""
    from nacre.ladder.prepare import write_task

    return write_task(config, work)


@stage(
    "task.test",
    produces="dataset",
    inputs={
        "train": Input("dataset", "evaluated_on", optional=True),
        "valid": Input("dataset", "evaluated_on", optional=True),
        "test": Input("dataset", "made_from", optional=True),
        "all": Input("dataset", "made_from", optional=True),
        "corpus": Input("dataset", "evaluated_on", optional=True),
        "unlabelled": Input("dataset", "evaluated_on", optional=True),
    },
    check=check,
)
def test(config: TaskConfig, work: Work) -> Mapping[str, Scalar]:
    """Makes the test rows of a task, in one shuffled order, with the whole report of what was found between splits."""
    from nacre.ladder.prepare import write_test

    return write_test(config, work)


@dataclass(frozen=True)
class CorpusConfig:
    """The kind of the task whose test rows are taken out of a corpus."""

    kind: Kind


@stage(
    "task.corpus",
    produces="dataset",
    inputs={"corpus": Input("dataset", "made_from"), "test": Input("dataset", "evaluated_on")},
)
def corpus(config: CorpusConfig, work: Work) -> Mapping[str, Scalar]:
    """Makes of a corpus what a tier may pretrain on: its texts without those that hold a test text of the task."""
    from nacre.ladder.prepare import write_corpus

    return write_corpus(config.kind, work)
