"""The work behind `tune.preference` and `tune.reward`. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted
from nacre.kernel.adapters.config import chosen
from nacre.kernel.model import Kernel
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, end_answers, fit, keep_words, load_kernel, load_tokenizer, rows_of
from nacre.tiers.tune.preferring import TunePreferenceConfig, TuneRewardConfig, check_reference
from nacre.tiers.tune.worker import adapt
from nacre.train.objectives.answers import Layout
from nacre.train.objectives.config_align import WITH_REFERENCE, PreferenceConfig
from nacre.train.objectives.preference import Kto, Preference
from nacre.train.objectives.reference import Reference
from nacre.train.objectives.reward import LABELS, Reward
from nacre.train.precision import resolve_precision


def tune_preference(config: TunePreferenceConfig, work: Work) -> Mapping[str, Scalar]:
    """The model of the step, tuned towards the preferred answers; says what became of their log-probability."""
    kernel = load_kernel(work.inputs["model"], work)
    if kernel.config.head != "lm":
        raise CheckpointError(
            f"{work.inputs['model']} has the head {kernel.config.head!r} and cannot write text",
            remedy="give a decoder or encoder-decoder with its language-model head",
        )
    tokenizer = load_tokenizer(work)
    template = template_of(config.template, tokenizer, work)
    end_answers(kernel, template)
    if not config.dropout:
        kernel.set_dropout(False)
    made = Kto if config.objective.kind == "kto" else Preference
    layout: Layout = "encoder-decoder" if kernel.config.layout == "encoder-decoder" else "decoder"
    reference = _reference(config, work, kernel, tokenizer)
    objective = made(tokenizer, template, config.objective, layout=layout, reference=reference)
    adapt(kernel, chosen(config.lora, config.adapter), work)
    how = Fit(config.train, limit=config.limit)
    metrics = fit(kernel, objective, rows_of(work.inputs["data"], how.limit), how, work)
    keep_words(tokenizer, template, work.out, work.inputs.get("tokenizer", work.inputs["model"]))
    history = json.loads((work.out / "training.json").read_text(encoding="utf-8"))["history"]
    return metrics | _told(history, config.objective, metrics.get("best_step"), work)


def tune_reward(config: TuneRewardConfig, work: Work) -> Mapping[str, Scalar]:
    """The body of the step's model under a head of one output, as `AutoModelForSequenceClassification` reads it."""
    kernel, tokenizer = load_kernel(work.inputs["model"], work), load_tokenizer(work)
    decoder = kernel.config.layout == "decoder"
    if decoder and tokenizer.pad_id is not None:
        # By it `transformers` finds the last real token.
        kernel.config = kernel.config.replace(pad_id=tokenizer.pad_id)
    elif decoder:
        work.progress.note("the tokenizer has no padding token: transformers will score one text at a time")
    if kernel.config.labels != LABELS:
        kernel = kernel.with_head("classify", labels=LABELS, pooling="last" if decoder else "cls")
    template = template_of(config.template, tokenizer, work)
    objective = Reward(tokenizer, template, config.objective, layout="decoder" if decoder else "encoder")
    adapt(kernel, chosen(config.lora, config.adapter), work)
    how = Fit(config.train, limit=config.limit)
    metrics = fit(kernel, objective, rows_of(work.inputs["data"], how.limit), how, work)
    keep_words(tokenizer, template, work.out, work.inputs.get("tokenizer", work.inputs["model"]))
    return metrics


def template_of(name: str | None, tokenizer: Tokenizer, work: Work) -> ChatTemplate | None:
    """The template that is named, or that of the tokenizer, or none."""
    if name is not None:
        return ChatTemplate.named(name, tokenizer)
    return ChatTemplate.find(work.inputs.get("tokenizer", work.inputs["model"]), tokenizer)


def _reference(config: TunePreferenceConfig, work: Work, kernel: Kernel, tokenizer: Tokenizer) -> Reference | None:
    """What the answers are compared with: the model that is given, or the step's own before it is trained."""
    if config.objective.kind not in WITH_REFERENCE:
        if "reference" in work.inputs:
            work.progress.note(f"{config.objective.kind} compares with no reference: the one that is given is not used")
        return None
    folder: Path | None = work.inputs.get("reference")
    if folder is not None:
        check_reference(kernel.config, hf.load_config(folder))
        _check_vocabulary(tokenizer, folder)
    elif adapted.attached(kernel):  # a model that was saved with its adapter is another one without it
        folder = work.inputs["model"]
    held: Kernel | Callable[[], Kernel] = kernel if folder is None else partial(_loaded, folder)
    device = torch.device(work.device)
    precision, _ = resolve_precision(config.train.precision, device)
    return Reference(
        held, folder=work.scratch / "reference", device=device, precision=precision, progress=work.progress
    )


def _loaded(folder: Path) -> Kernel:
    return hf.load(folder).float()


def _check_vocabulary(tokenizer: Tokenizer, reference: Path) -> None:
    if not (reference / "tokenizer.json").is_file():
        return
    other = Tokenizer.load(reference)
    if other.raw.get_vocab(True) != tokenizer.raw.get_vocab(True):
        raise CheckpointError(
            f"the reference {reference} has another vocabulary than the model",
            remedy="give the model that this one was tuned from, or leave the reference out (the model itself)",
        )


def _told(history: list[dict[str, Any]], config: PreferenceConfig, best: Any, work: Work) -> dict[str, Scalar]:
    """The margins of the weights that are kept, and whether the chosen answers became less likely on the way: a
    margin grows as well where both answers fall, the rejected one faster."""
    prefix = "valid_" if any("valid_reward_chosen" in row for row in history) else ""
    rows = [row for row in history if f"{prefix}reward_chosen" in row]
    if not rows:
        return {}
    last = next((row for row in rows if prefix and row["step"] == best), rows[-1])
    if config.kind in WITH_REFERENCE:
        change = last[f"{prefix}reward_chosen"] / config.strength
    else:
        change = last[f"{prefix}logp_chosen"] - rows[0][f"{prefix}logp_chosen"]
    per_token = config.per_token and config.kind in WITH_REFERENCE
    unit = "nats_per_token" if per_token else "nats"
    found: dict[str, Scalar] = {f"chosen_change_{unit}": round(change, 4)}
    found |= {name: round(last[prefix + name], 4) for name in ("margin", "accuracy") if prefix + name in last}
    if change < 0:
        work.progress.note("the chosen answers became less likely", **{unit: round(change, 3)})
        work.declare(note=f"the chosen answers became less likely in training, by {-change:.3g} {unit}")
    return found
