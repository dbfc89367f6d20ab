"""Stages that measure. Light: torch and scikit-learn are imported inside.

Each writes `metrics.json`, `predictions.jsonl` (or `samples.jsonl`) and `report.html`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError, DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage

MEASURED = {
    "model": Input("model", "evaluates"),
    "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
    "data": Input("dataset", "evaluated_on"),
}


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `bca` corrects bias and skew, `percentile` is plain."""

    resamples: int = 1000
    level: float = 0.95
    method: Literal["bca", "percentile"] = "bca"

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ConfigError(f"{self.resamples} resamples are too few for an interval", remedy="use 100 or more")
        if not 0 < self.level < 1:
            raise ConfigError(f"level is {self.level}", remedy="give a share between 0 and 1, 0.95 as a rule")


@dataclass(frozen=True)
class EvaluateConfig:
    """What all evaluations share. `language` is the report's; `limit` measures the first rows only.

    `context`: tokens of a row that are read; None takes what the model was trained with, else what it can read.
    """

    split: str = "test"
    language: Literal["en", "zh"] = "en"
    batch: int = 32
    limit: int | None = None
    context: int | None = None
    intervals: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        for name in ("batch", "limit", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", remedy=f"set {name} to 1 or more")


@dataclass(frozen=True)
class TranslateConfig(EvaluateConfig):
    """`target_language` decides how BLEU cuts words: `zh` by characters, others as sacrebleu's 13a."""

    target_language: str = "en"
    max_new_tokens: int = 128


@dataclass(frozen=True)
class GenerateConfig(EvaluateConfig):
    """What is written and how it is checked. Without `prompts` texts begin from the start token.

    `checks`: `poem` (form, rhyme), `python` (parses), `text` (variety only); copies from `train` of the data always.
    `stop` strings end a text. The held-out `split` of the data is checked too, as a yardstick.
    """

    samples: int = 100
    prompts: tuple[str, ...] = ()
    checks: Literal["text", "poem", "python"] = "text"
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImagesConfig(EvaluateConfig):
    """`mean` and `std` of the normalisation; None takes what the model was trained with (0 and 1 if not recorded)."""

    mean: float | None = None
    std: float | None = None


def check_split(config: EvaluateConfig, inputs: Mapping[str, Path]) -> None:
    """The split must be there before anything is loaded."""
    data = inputs.get("data")
    if data is not None and data.is_dir() and not list(data.glob(f"{config.split}.jsonl*")):
        there = ", ".join(sorted({file.name.partition(".")[0] for file in data.glob("*.jsonl*")}))
        remedy = f"set split to one that is there: {there}" if there else "give a data set: a folder with test.jsonl"
        raise DataError(f"{data} has no split {config.split!r}", remedy=remedy)


@stage(
    "evaluate.classify",
    produces="report",
    inputs=MEASURED | {"baseline": Input("predictions", "evaluates", optional=True)},
    check=check_split,
)
def classify(config: EvaluateConfig, work: Work) -> Mapping[str, Scalar]:
    """A classifier's accuracy, F1, AUC and calibration with intervals, against a baseline where one is given."""
    from nacre.lifecycle.evaluate.worker import evaluate_classify

    return evaluate_classify(config, work)


@stage("evaluate.tag", produces="report", inputs=MEASURED, check=check_split)
def tag(config: EvaluateConfig, work: Work) -> Mapping[str, Scalar]:
    """A tagger's entity precision, recall and F1 with intervals."""
    from nacre.lifecycle.evaluate.worker import evaluate_tag

    return evaluate_tag(config, work)


@stage("evaluate.language", produces="report", inputs=MEASURED, check=check_split)
def language(config: EvaluateConfig, work: Work) -> Mapping[str, Scalar]:
    """A decoder's bits per byte and perplexity on unseen text, with intervals by document."""
    from nacre.lifecycle.evaluate.worker_text import evaluate_language

    return evaluate_language(config, work)


@stage(
    "evaluate.generate",
    produces="report",
    inputs={**MEASURED, "data": Input("dataset", "evaluated_on", optional=True)},
    check=check_split,
)
def generate(config: GenerateConfig, work: Work) -> Mapping[str, Scalar]:
    """Samples of a generating model, checked for form, grammar, variety and copies from its training data."""
    from nacre.lifecycle.evaluate.worker_text import evaluate_generate

    return evaluate_generate(config, work)


@stage("evaluate.translate", produces="report", inputs=MEASURED, check=check_split)
def translate(config: TranslateConfig, work: Work) -> Mapping[str, Scalar]:
    """A translator's BLEU and chrF with intervals and signatures."""
    from nacre.lifecycle.evaluate.worker_text import evaluate_translate

    return evaluate_translate(config, work)


@stage(
    "evaluate.images",
    produces="report",
    inputs={key: MEASURED[key] for key in ("model", "data")},
    check=check_split,
)
def images(config: ImagesConfig, work: Work) -> Mapping[str, Scalar]:
    """An image classifier's accuracy, F1, AUC and calibration with intervals."""
    from nacre.lifecycle.evaluate.worker import evaluate_images

    return evaluate_images(config, work)
