"""The work behind `tune.distil`. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.kernel import hf
from nacre.kernel.adapters.config import chosen
from nacre.kernel.model import Kernel
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, end_answers, fit, keep_words, labels_of, load_kernel, rows_of
from nacre.tiers.tune.distilling import TuneDistilConfig
from nacre.tiers.tune.worker import adapt
from nacre.train import objective as objectives
from nacre.train.objectives.distil import Distil, Teacher, same_tokens
from nacre.train.objectives.layer_match import attach, detach
from nacre.train.objectives.sft import Sft, SftSeq2Seq
from nacre.train.order import generator_of
from nacre.train.result import training_flops


def tune_distil(config: TuneDistilConfig, work: Work) -> Mapping[str, Scalar]:
    """The student of the step, taught; the teacher is read and not written."""
    folders = work.inputs["student"], work.inputs["teacher"]
    words, their_words = Tokenizer.load(folders[0]), Tokenizer.load(folders[1])
    teacher = hf.load(folders[1]).float()
    kernel, template = load_kernel(folders[0], work), _template(config, folders[0], words)
    labels: tuple[str, ...] = ()
    if config.lesson.kind in ("classify", "tag"):
        labels = labels_of(work.inputs["data"])
        kernel = _headed(kernel, config, labels)
    inner = _lesson(config, words, template, labels, kernel)
    reads = None
    if config.distil.cache and config.lesson.kind == "classify" and not same_tokens(words, their_words):
        reads = _lesson(config, their_words, None, labels, kernel)
        work.progress.note("the teacher reads the rows by its own tokenizer")
    guided = Teacher(teacher, their_words, reads)
    objective: Any = Distil(inner, guided, config.distil, folder=work.scratch / "taught", device=work.device)
    sizes: dict[str, Scalar] = {"student_parameters": _size(kernel), "teacher_parameters": _size(teacher)}
    end_answers(kernel, template)
    adapt(kernel, chosen(config.lora, config.adapter), work)
    if config.distil.hidden is not None and attach(
        kernel, teacher.config, config.distil.hidden, generator_of("projections", work.seed)
    ):
        work.progress.note("a linear projection per layer stands between widths that differ; it is not kept")
    rows = rows_of(work.inputs["data"], config.limit)
    metrics = fit(kernel, objective, rows, Fit(config.train), work, after=detach)
    _pay(objective, teacher, work)
    keep_words(words, template, work.out, folders[0])
    return metrics | sizes


def _headed(kernel: Kernel, config: TuneDistilConfig, labels: tuple[str, ...]) -> Kernel:
    """The student with a head for these classes: its own where it is one."""
    if kernel.config.head == config.lesson.head and kernel.config.labels == labels:
        return kernel
    if config.lesson.kind == "tag":
        return kernel.with_head("tag", labels=labels)
    return kernel.with_head("classify", labels=labels, pooling=config.pooling)


def _lesson(
    config: TuneDistilConfig, words: Tokenizer, template: ChatTemplate | None, labels: tuple[str, ...], kernel: Kernel
) -> Any:
    """The objective of the task itself."""
    kind = config.lesson.kind
    settings = getattr(config.lesson, kind)
    if kind in ("classify", "tag"):
        return objectives.load(kind)(words, labels, settings)
    if kind != "sft":
        return objectives.load(kind)(words, settings)
    if kernel.config.layout == "encoder-decoder":
        return SftSeq2Seq(words, template, settings)
    assert template is not None
    return Sft(template, settings)


def _template(config: TuneDistilConfig, folder: Path, words: Tokenizer) -> ChatTemplate | None:
    if config.lesson.kind != "sft":
        return None
    if config.template is None and hf.load_config(folder).layout == "encoder-decoder":
        return ChatTemplate.find(folder, words)
    return ChatTemplate.open(folder, config.template)


def _pay(objective: Distil, teacher: Kernel, work: Work) -> None:
    """Adds what the teacher computed, a forward pass over what it was asked, to the cost of the step."""
    asked = work.tokens if objective.kept_tokens is None else objective.kept_tokens
    if asked is None or work.flops is None:
        return
    work.spent(flops=work.flops + training_flops(teacher.config, asked, 64) / 3)


def _size(kernel: Kernel) -> int:
    return sum(one.numel() for one in kernel.parameters())
