"""A task made ready for a kernel: rows, objective and head by kind of task. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nacre.data.tokenizer import Tokenizer
from nacre.errors import CheckpointError, DataError
from nacre.kernel import hf
from nacre.kernel.config import KernelConfig
from nacre.kernel.model import Kernel
from nacre.metrics.quality import Kind
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Rows, load_kernel
from nacre.tiers.kernel_answers import Limits, tag_config
from nacre.tiers.task import Row, Task, load, targets_of
from nacre.tiers.tune.stages import SolveConfig
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import CausalConfig, ClassifyConfig, ContrastConfig, Seq2SeqConfig
from nacre.train.objectives.contrast import Contrast
from nacre.train.objectives.seq2seq import Seq2Seq
from nacre.train.objectives.tag import Tag, tags_of
from nacre.train.order import generator_of

JUDGED_IN_SEARCH = 1000  # validation rows, at most
POOL = 1000  # documents among which validation ranks, besides those that are right
_MEASURED = 512  # rows whose tokens are counted for the estimate of the cost


class Prepared(NamedTuple):
    """A kernel with its head, the objective, the rows in its form, and what early stopping looks at."""

    kernel: Kernel
    objective: Any
    rows: Rows
    judge: Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """What every trial of one solution knows."""

    config: SolveConfig
    task: Task
    work: Work
    base: Path

    @classmethod
    def of(cls, config: SolveConfig, work: Work) -> Setting:
        """Raises CheckpointError for a base that cannot solve tasks of this kind, DataError without training rows."""
        setting = cls(config, load(work.inputs["task"]), work, work.inputs["base"])
        if not setting.task.train:
            raise DataError(
                f"the task {setting.task.name} has no training rows", remedy="give it some, or leave tune out"
            )
        if setting.task.kind == "rank" and not setting.task.corpus:
            raise DataError(f"the task {setting.task.name} has no corpus to rank", remedy="give it corpus.jsonl")
        check_base(setting.shape, setting.task.kind, setting.base)
        return setting

    @cached_property
    def shape(self) -> KernelConfig:
        """The base model's config."""
        return hf.load_config(self.base)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.base)

    @cached_property
    def limits(self) -> Limits:
        """How rows are read. Learned and rotary positions bound the context."""
        bounded = self.shape.position in ("learned", "rotary")
        longest = self.shape.max_positions if bounded else self.config.context
        context, written = min(self.config.context, longest), self.config.target_context
        if self.task.kind == "generate" and self.shape.layout == "decoder":
            context = min(context + written, longest)  # a decoder holds both
            written = min(written, context // 2)
        return Limits(self.task.kind, context, written)

    @cached_property
    def order(self) -> list[int]:
        """The training rows in one shuffled order, of which the search takes the first."""
        return torch.randperm(len(self.task.train), generator=generator_of("search", self.work.seed)).tolist()

    @cached_property
    def mean_tokens(self) -> float:
        """Tokens of a training example, on average, counted on some hundred rows."""
        examples = prepare(self, self.order[:_MEASURED], None)
        lengths = [examples.objective.length(one) for one in map(examples.objective.encode, examples.rows.train) if one]
        limit = self.limits.context * (2 if self.task.kind in ("rank", "generate") else 1)
        return float(sum(min(one, limit) for one in lengths) / max(1, len(lengths)))

    @cached_property
    def valid_corpus(self) -> tuple[Row, ...]:
        """The documents that validation ranks: those that are right, and a drawn part of the others."""
        right = {one for row in self.task.valid for one in row["relevant"]}
        others = [row for row in self.task.corpus if row["id"] not in right]
        drawn = torch.randperm(len(others), generator=generator_of("pool", self.work.seed))[:POOL].tolist()
        return (*(row for row in self.task.corpus if row["id"] in right), *(others[at] for at in sorted(drawn)))


def check_base(shape: KernelConfig, kind: Kind, folder: Path) -> None:
    """Raises CheckpointError for a model that cannot be tuned to tasks of this kind."""
    if shape.is_vision:
        raise CheckpointError(f"{folder} is a model of images", remedy="give a model of texts as the base")
    if kind == "generate" and shape.head != "lm":
        raise CheckpointError(
            f"the base model (a {shape.family} {shape.layout}, head {shape.head!r}) cannot write text",
            remedy="give a decoder or encoder-decoder with its language-model head as the base",
        )
    if kind != "generate" and shape.layout == "encoder-decoder":
        raise CheckpointError(
            f"the base model is a {shape.family} encoder-decoder, which is tuned to write only",
            remedy="give an encoder or a decoder as the base",
        )


def prepare(setting: Setting, chosen: Sequence[int] | None, start: Path | None) -> Prepared:
    """The task on the rows `chosen` (None: all), for the kernel in `start` (None: the base, with a fresh head)."""
    train = setting.task.train if chosen is None else [setting.task.train[at] for at in chosen]
    return _PREPARE[setting.task.kind](setting, list(train), start)


def _kernel(setting: Setting, start: Path | None) -> Kernel:
    return load_kernel(start or setting.base, setting.work)


def _classify(setting: Setting, train: list[Row], start: Path | None) -> Prepared:
    labels = setting.task.labels
    objective = Classify(setting.tokenizer, labels, ClassifyConfig(context=setting.limits.context))
    kernel = _kernel(setting, start)
    if start is None:
        kernel = kernel.with_head("classify", labels=labels, pooling="mean")
    return Prepared(kernel, objective, Rows(train, list(setting.task.valid)), {"metric": "accuracy", "mode": "max"})


def _tag(setting: Setting, train: list[Row], start: Path | None) -> Prepared:
    labels = tags_of(setting.task.train)
    objective = Tag(setting.tokenizer, labels, tag_config(setting.limits.context))
    # A tag that training lacks cannot be learnt; such rows count when the rung is judged, not in early stopping.
    known = [row for row in setting.task.valid if set(row["tags"]) <= set(labels)]
    objective.note("validation rows with tags that training lacks", len(setting.task.valid) - len(known))
    kernel = _kernel(setting, start)
    if start is None:
        kernel = kernel.with_head("tag", labels=labels)
    return Prepared(kernel, objective, Rows(train, known), {"metric": "accuracy", "mode": "max"})


def _generate(setting: Setting, train: list[Row], start: Path | None) -> Prepared:
    limits = setting.limits
    objective: Any
    if setting.shape.layout == "decoder":
        objective = Causal(setting.tokenizer, CausalConfig(context=limits.context, packing="none"))
    else:
        start_id = setting.shape.decoder_start_id
        how = Seq2SeqConfig(context=limits.context, target_context=limits.target_context, start_id=start_id)
        objective = Seq2Seq(setting.tokenizer, how)
    pairs = [{"source": row["source"], "target": one} for row in train for one in targets_of(row)]
    held = [{"source": row["source"], "target": targets_of(row)[0]} for row in setting.task.valid]
    return Prepared(_kernel(setting, start), objective, Rows(list(pairs), list(held)), {})


def _rank(setting: Setting, train: list[Row], start: Path | None) -> Prepared:
    context = setting.limits.context
    how = ContrastConfig(context=context, positive_context=context, pooling=setting.limits.pooling)
    objective = Contrast(setting.tokenizer, how)
    texts = {row["id"]: str(row["text"]) for row in setting.task.corpus}
    pairs = [one for row in train for one in _pairs(row, texts)]
    objective.note(
        "relevant ids that the corpus lacks", sum(one not in texts for row in train for one in row["relevant"])
    )
    held = [pair for row in setting.task.valid for pair in _pairs(row, texts)[:1]]
    kernel = _kernel(setting, start)
    if kernel.config.head != "none":
        kernel = kernel.with_head("none")
    return Prepared(kernel, objective, Rows(list(pairs), list(held)), {})


def _pairs(row: Row, texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """A query with each of its answers."""
    known = [one for one in row["relevant"] if one in texts]
    return [
        {"query": row["query"], "positive": texts[one], "positive_id": one, "relevant": list(row["relevant"])}
        for one in known
    ]


_PREPARE: Mapping[Kind, Callable[[Setting, list[Row], Path | None], Prepared]] = {
    "classify": _classify,
    "tag": _tag,
    "generate": _generate,
    "rank": _rank,
}
