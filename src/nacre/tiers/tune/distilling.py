"""The stage in which a student learns from a teacher. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from nacre.data.chat.shipped import check_name
from nacre.errors import ConfigError
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig, chosen
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.tiers.tune.preferring import config_of
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import CausalConfig, ClassifyConfig, MaskedConfig, Seq2SeqConfig, TagConfig
from nacre.train.objectives.config_align import DistilConfig, SftConfig

_HEADS = {"classify": "classify", "tag": "tag", "mlm": "mlm", "causal": "lm", "seq2seq": "lm", "sft": "lm"}


@dataclass(frozen=True)
class LessonConfig:
    """What is taught: one of these, with its settings (`classify: {context: 64}`)."""

    classify: ClassifyConfig | None = None
    tag: TagConfig | None = None
    mlm: MaskedConfig | None = None
    causal: CausalConfig | None = None
    seq2seq: Seq2SeqConfig | None = None
    sft: SftConfig | None = None

    def __post_init__(self) -> None:
        given = [one.name for one in fields(self) if getattr(self, one.name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"lesson names {' and '.join(given) or 'nothing'}", remedy=f"give one of: {', '.join(_HEADS)}"
            )

    @property
    def kind(self) -> str:
        """The name of the one that is given."""
        return next(one.name for one in fields(self) if getattr(self, one.name) is not None)

    @property
    def head(self) -> str:
        """The head that it needs."""
        return _HEADS[self.kind]


@dataclass(frozen=True)
class TuneDistilConfig:
    """`lesson`: the task, which teacher and student share. `pooling` of a student's new head, where it has none for the
    classes. `template` of `sft`: one that is shipped (None: the tokenizer's own). `adapter`, or `lora`: what the
    student learns beside a frozen body, and its head."""

    lesson: LessonConfig
    distil: DistilConfig = field(default_factory=DistilConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    pooling: Literal["mean", "cls", "last"] = "mean"
    template: str | None = None
    limit: int | None = None  # training rows
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None

    def __post_init__(self) -> None:
        if self.template is not None:
            check_name(self.template)
        if self.train.compile:
            raise ConfigError("a loss that asks a teacher is not compiled", remedy="train.compile: false")


def check_distil(config: TuneDistilConfig, inputs: Mapping[str, Path]) -> None:
    """What can be known before: that the teacher was tuned for this lesson, and that both are of one make."""
    chosen(config.lora, config.adapter)
    teacher, student = config_of(inputs.get("teacher")), config_of(inputs.get("student"))
    lesson = config.lesson
    if teacher is not None and teacher.head != lesson.head:
        raise ConfigError(
            f"the teacher {inputs['teacher']} has the head {teacher.head!r}; {lesson.kind} is taught by one with "
            f"{lesson.head!r}",
            remedy="tune the teacher on the task first (tune.classify, tune.tag, tune.sft ...)",
        )
    if teacher is not None and student is not None and teacher.layout != student.layout:
        raise ConfigError(
            f"the teacher is of the layout {teacher.layout!r}, the student {student.layout!r}",
            remedy="give both of one layout, or gather the teacher's texts with teach.collect",
        )


@stage(
    "tune.distil",
    produces="model",
    inputs={
        "student": Input("model", "finetuned_from"),
        "teacher": Input("model", "distilled_from"),
        "data": Input("dataset", "trained_on"),
    },
    check=check_distil,
)
def distil(config: TuneDistilConfig, work: Work) -> Mapping[str, Scalar]:
    """A student taught by a larger model: its probabilities, its hidden states, and what it says of the student's own
    answers."""
    from nacre.tiers.tune.distilling_worker import tune_distil

    return tune_distil(config, work)
