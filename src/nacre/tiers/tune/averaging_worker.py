"""The work behind `tune.average`. Imports torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nacre.data.tokenizer import Tokenizer
from nacre.data.write import write_json
from nacre.errors import CheckpointError, ConfigError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.lineage import record
from nacre.lineage.digest import RECORD_NAME, digest_file
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import keep_tokenizer, rows_of, save_trained
from nacre.tiers.tune.averaging import MODELS, AverageConfig
from nacre.train import objective as objectives
from nacre.train.evaluation import Setting, evaluate
from nacre.train.objectives.config import CausalConfig, ClassifyConfig, Seq2SeqConfig, TagConfig

State = Mapping[str, Tensor]


def average_models(config: AverageConfig, work: Work) -> Mapping[str, Scalar]:
    """Writes the average into `work.out`, and `average.json`: which models went into it with which weight."""
    folders = [work.inputs[name] for name in MODELS if name in work.inputs]
    kernels = [hf.load(folder) for folder in folders]
    check_alike(kernels, folders)
    _note_starts(folders, work)
    states = [one.state_dict() for one in kernels]
    names = [name for name in MODELS if name in work.inputs]
    scores: list[float] = []
    if config.how == "greedy":
        weights, scores, reached = _greedy(copy.deepcopy(kernels[0]), states, config, work)
    elif config.how == "weighted":
        weights = [one / sum(config.weights) for one in config.weights]
    else:
        weights = [1 / len(states)] * len(states)
    kernel = copy.deepcopy(kernels[0])  # the states are those of the kernels, not copies
    kernel.load_state_dict(blended(states, weights))
    save_trained(kernel, work.out)
    if (folders[0] / "tokenizer.json").is_file():
        keep_tokenizer(Tokenizer.load(folders[0]), work.out, folders[0])
    told: dict[str, Any] = {"how": config.how, "weights": dict(zip(names, weights, strict=True))}
    metrics: dict[str, Scalar] = {"models": len(states), "kept": sum(one > 0 for one in weights)}
    if scores:
        told |= {config.metric: dict(zip(names, scores, strict=True))}
        better = max if config.mode == "max" else min
        metrics |= {f"valid_{config.metric}": round(reached, 6), "best_single": round(better(scores), 6)}
    write_json(work.out / "average.json", told)
    return metrics


def blended(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of state dictionaries, summed in float64 and given in the first one's precision.

    Buffers of whole numbers or truth values have no mean: CheckpointError where they differ.
    """
    found: dict[str, Tensor] = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            if any(not torch.equal(first, one[name]) for one in states):
                raise CheckpointError(f"the buffer {name} differs", remedy="average models of one architecture")
            found[name] = first
            continue
        total = torch.zeros_like(first, dtype=torch.float64)
        for state, weight in zip(states, weights, strict=True):
            if weight:
                total += weight * state[name].double()
        found[name] = total.to(first.dtype)
    return found


def check_alike(kernels: Sequence[Kernel], folders: Sequence[Path]) -> None:
    """CheckpointError that names what differs: the config but for dropout, classes, weights' names, tokenizers."""
    remedy = "average models that were tuned from one base, with one config, on the same classes"
    first = {name: value for name, value in asdict(kernels[0].config).items() if "dropout" not in name}
    for kernel, folder in zip(kernels[1:], folders[1:], strict=True):
        other = asdict(kernel.config)
        for name, value in first.items():
            if other[name] != value:
                what = f"{name} is {_brief(value)} and {_brief(other[name])}"
                raise CheckpointError(f"{folders[0]} and {folder} cannot be averaged: {what}", remedy=remedy)
        mine, theirs = kernels[0].state_dict(), kernel.state_dict()
        if odd := sorted(mine.keys() ^ theirs.keys()):
            raise CheckpointError(f"only one of {folders[0]} and {folder} has {odd[0]}", remedy=remedy)
        if _vocabulary(folders[0]) != _vocabulary(folder):
            raise CheckpointError(f"{folders[0]} and {folder} have different tokenizers", remedy=remedy)


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _vocabulary(folder: Path) -> str | None:
    file = folder / "tokenizer.json"
    return digest_file(file) if file.is_file() else None


def _note_starts(folders: Sequence[Path], work: Work) -> None:
    """Weights that did not start from one model lie in different basins, where their mean is no model as a rule."""
    starts = set()
    for folder in folders:
        known = record.read(folder).parents if (folder / RECORD_NAME).is_file() else ()
        starts |= {parent.digest for parent in known if parent.relation == "finetuned_from"}
    if len(starts) > 1:
        work.declare(note="the averaged models were not tuned from one and the same model")
        work.progress.note("the models were not tuned from one and the same model", starts=len(starts))


def _greedy(
    kernel: Kernel, states: Sequence[State], config: AverageConfig, work: Work
) -> tuple[list[float], list[float], float]:
    """Weights, the score of every single model, and that of the average. `kernel` is used up."""
    kernel = kernel.float()
    objective = _objective(kernel, config, work)
    rows = rows_of(work.inputs["data"]).valid
    examples = objectives.prepare(objective, rows, "the validation rows", training=False)
    setting = Setting(torch.device("cpu"), micro_batch=config.batch, seed=work.seed)
    sign = 1 if config.mode == "max" else -1

    def score(weights: Sequence[float]) -> float:
        kernel.load_state_dict(blended(states, weights))
        found = evaluate(kernel, objective, examples, setting)
        if config.metric not in found:
            raise ConfigError(f"the evaluation has no metric {config.metric!r}", remedy=f"one of: {', '.join(found)}")
        return found[config.metric]

    n = len(states)
    singles = [score([float(one == number) for one in range(n)]) for number in range(n)]
    order = sorted(range(n), key=lambda number: -sign * singles[number])
    kept, reached = [order[0]], singles[order[0]]
    for number in order[1:]:
        tried = [*kept, number]
        value = score([float(one in tried) / len(tried) for one in range(n)])
        work.progress.note("tried", model=number + 1, value=round(value, 6), kept=sign * value >= sign * reached)
        if sign * value >= sign * reached:
            kept, reached = tried, value
    return [float(one in kept) / len(kept) for one in range(n)], singles, reached


def _objective(kernel: Kernel, config: AverageConfig, work: Work) -> Any:
    """What measures the models on rows: the objective of their head."""
    shape = kernel.config
    words = Tokenizer.load(work.inputs["first"])
    if shape.head == "classify" and shape.layout != "encoder-decoder" and not shape.is_vision:
        return objectives.load("classify")(words, shape.labels, ClassifyConfig(context=config.context))
    if shape.head == "tag":
        how = TagConfig(context=config.context, overlap=config.context // 4)
        return objectives.load("tag")(words, shape.labels, how)
    if shape.head == "lm" and shape.layout == "decoder":
        return objectives.load("causal")(words, CausalConfig(context=config.context, packing="none"))
    if shape.head == "lm" and shape.layout == "encoder-decoder":
        return objectives.load("seq2seq")(words, Seq2SeqConfig(context=config.context))
    raise ConfigError(
        f"models with the head {shape.head!r} are not measured here",
        remedy="average them with how: uniform or weighted",
    )
