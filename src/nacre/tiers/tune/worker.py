"""The work behind the stages of tier 4. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nacre.errors import CheckpointError
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig, chosen
from nacre.kernel.model import Kernel
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import (
    Fit,
    fit,
    keep_tokenizer,
    labels_of,
    load_kernel,
    load_tokenizer,
    rows_of,
    trained_part,
)
from nacre.tiers.tune.stages import (
    TuneCausalConfig,
    TuneClassifyConfig,
    TuneImagesConfig,
    TuneSeq2SeqConfig,
    TuneTagConfig,
)
from nacre.train import objective as objectives
from nacre.train.objectives.adversarial import Adversarial
from nacre.train.objectives.config import RobustConfig
from nacre.train.objectives.rdrop import RDrop
from nacre.train.order import generator_of


def tune_classify(config: TuneClassifyConfig, work: Work) -> Mapping[str, Scalar]:
    """A classifier over `labels.json` of the data, on the body of the step's model."""
    kernel, objective = classifier(config, work)
    return _tuned(kernel, objective, Fit(config.train, balance=config.balance, limit=config.limit), work)


def classifier(config: TuneClassifyConfig, work: Work) -> tuple[Kernel, Any]:
    """A fresh classifier over `labels.json` of the data, with its adapter, and its objective."""
    labels = labels_of(work.inputs["data"])
    kernel = load_kernel(work.inputs["model"], work).with_head("classify", labels=labels, pooling=config.pooling)
    objective = robust(objectives.load("classify")(load_tokenizer(work), labels, config.objective), config.robust)
    adapt(kernel, chosen(config.lora, config.adapter), work)
    return kernel, objective


def tune_tag(config: TuneTagConfig, work: Work) -> Mapping[str, Scalar]:
    """A tagger over `labels.json` of the data."""
    labels = labels_of(work.inputs["data"])
    kernel = load_kernel(work.inputs["model"], work).with_head("tag", labels=labels)
    objective = robust(objectives.load("tag")(load_tokenizer(work), labels, config.objective), config.robust)
    adapt(kernel, chosen(config.lora, config.adapter), work)
    return _tuned(kernel, objective, Fit(config.train, limit=config.limit), work)


def tune_text(name: str, config: TuneSeq2SeqConfig | TuneCausalConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel tuned to write text: objective `seq2seq` or `causal`, both under the language-model head."""
    kernel = load_kernel(work.inputs["model"], work)
    if kernel.config.head != "lm":
        raise CheckpointError(
            f"{work.inputs['model']} has the head {kernel.config.head!r} and cannot write text",
            remedy="give a decoder or encoder-decoder with its language-model head",
        )
    objective = robust(objectives.load(name)(load_tokenizer(work), config.objective), config.robust)
    adapt(kernel, chosen(config.lora, config.adapter), work)
    return _tuned(kernel, objective, Fit(config.train, limit=config.limit), work)


def tune_images(config: TuneImagesConfig, work: Work) -> Mapping[str, Scalar]:
    """A classifier of images over `labels.json` of the data."""
    labels = labels_of(work.inputs["data"])
    kernel = load_kernel(work.inputs["model"], work)
    kernel = kernel.with_head("classify", labels=labels, pooling="cls")
    objective = objectives.load("classify_image")(labels, config.objective)
    adapt(kernel, chosen(config.lora, config.adapter), work)
    rows = rows_of(work.inputs["data"], config.limit)
    return fit(kernel, objective, rows, Fit(config.train, balance=config.balance), work)


def adapt(kernel: Kernel, config: AdapterConfig | None, work: Work) -> int:
    """Attaches an adapter where there is a config for one, and says so in the record; the number of parameters that are
    trained then."""
    if config is None:
        return trained_part(kernel)[0]
    names = adapted.attach(kernel, config, generator_of("lora", work.seed))
    peft.check_savable(kernel)
    trained, share = trained_part(kernel)
    work.progress.note("adapter", method=config.method, modules=len(names), trained=trained, share=share)
    work.declare(
        note=f"{config.method} beside {len(names)} modules: {trained:,} parameters trained, {share:.3%} of all"
    )
    return trained


def robust(objective: Any, config: RobustConfig | None) -> Any:
    """The objective, inside what makes it robust where there is a config for that."""
    if config is not None and config.adversarial is not None:
        return Adversarial(objective, config.adversarial)
    return objective if config is None or config.rdrop is None else RDrop(objective, config.rdrop)


def _tuned(kernel: Kernel, objective: Any, how: Fit, work: Work) -> Mapping[str, Scalar]:
    metrics = fit(kernel, objective, rows_of(work.inputs["data"], how.limit), how, work)
    keep_tokenizer(objective.tokenizer, work.out, work.inputs.get("tokenizer", work.inputs["model"]))
    return metrics
