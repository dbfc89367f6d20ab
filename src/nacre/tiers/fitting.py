"""From a model artifact and a dataset artifact to a trained model artifact: what pretraining and tuning share.

Imports torch: stage modules import this file inside their functions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nacre.data.read import read
from nacre.data.tokenizer import Tokenizer
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.model import Kernel
from nacre.lineage.durable import write_atomic
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import Objective, Row, prepare
from nacre.train.objectives.config import Balance
from nacre.train.order import seed_of
from nacre.train.sampling import balanced_indexes

if TYPE_CHECKING:
    from nacre.data.chat.template import ChatTemplate

ADAPTER = "adapter"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Rows:
    """The training and validation rows of a dataset artifact."""

    train: list[Row]
    valid: list[Row]


@dataclass(frozen=True)
class Fit:
    """How to train: the loop's config, how often rows of rare classes are seen, and how many training rows at most."""

    train: TrainConfig
    balance: Balance = "none"
    limit: int | None = None


def rows_of(folder: Path, limit: int | None = None) -> Rows:
    """Rows of `train.jsonl` and `valid.jsonl` of a dataset artifact; `limit` keeps the first training rows."""
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}", remedy="give 1 row or more, or leave it out for all")
    file = folder / "train.jsonl"
    if not file.is_file():
        raise DataError(
            f"{folder} holds no train.jsonl, so there is nothing to train on",
            remedy="give the artifact of a data.* stage",
        )
    valid = folder / "valid.jsonl"
    return Rows(list(islice(read(file), limit)), list(read(valid)) if valid.is_file() else [])


def labels_of(folder: Path) -> tuple[str, ...]:
    """The classes of a dataset artifact, in their fixed order."""
    file = folder / "labels.json"
    if not file.is_file():
        raise DataError(
            f"{folder} holds no labels.json, so its rows have no classes",
            remedy="prepare the data with its label or tags field mapped",
        )
    names = json.loads(file.read_text(encoding="utf-8"))
    return tuple(str(name) for name in names)


def load_kernel(folder: Path, work: Work) -> Kernel:
    """The kernel of a model artifact in float32, with random draws seeded by the step."""
    torch.manual_seed(seed_of("heads", work.seed))
    return hf.load(folder, device="cpu").float()


def load_tokenizer(work: Work) -> Tokenizer:
    """The tokenizer given to the step, else the one that lies beside the model."""
    folder = work.inputs.get("tokenizer", work.inputs.get("model"))
    if folder is None:
        raise CheckpointError("the step has neither a tokenizer nor a model", remedy="name one under inputs:")
    return Tokenizer.load(folder)


def trained_part(kernel: Kernel) -> tuple[int, float]:
    """How many of the parameters that are written are trained, and which share of them that is."""
    kept = kernel.state_dict().keys()
    sizes = [(one.numel(), one.requires_grad) for name, one in kernel.named_parameters() if name in kept]
    trained = sum(size for size, is_trained in sizes if is_trained)
    return trained, round(trained / sum(size for size, _ in sizes), 5)


def fit(
    kernel: Kernel,
    objective: Objective[Any, Any],
    rows: Rows,
    how: Fit,
    work: Work,
    *,
    after: Callable[[Kernel], None] | None = None,
) -> dict[str, Scalar]:
    """Trains `kernel` on `rows` and writes it into `work.out`; returns the step's metrics.

    `after` takes away what was trained with the kernel and is no part of it. A kernel with adapters is written merged,
    and the adapters beside it in `adapter/`, in PEFT's format. What the objective dropped, cut or noted, and what share
    of the parameters an adapter trained, is reported and written to `training.json` beside the weights.
    """
    objective.check(kernel)
    hf.check_savable(kernel.config)
    examples = prepare(objective, rows.train, "the training rows")
    if how.balance != "none":
        drawn = balanced_indexes([example.label for example in examples], how.balance, seed=work.seed, epoch=0)
        work.progress.note("balanced", how=how.balance, rows=len(examples), drawn=len(drawn))
        examples = [examples[index] for index in drawn]
    valid = prepare(objective, rows.valid, "the validation rows", training=False) if rows.valid else []
    told = {name: dict(getattr(objective, name)) for name in ("dropped", "truncated", "noted")}
    for name, counts in told.items():
        if counts:
            work.progress.note(f"rows {name}", **counts)
    part = dict(zip(("trained", "share"), trained_part(kernel), strict=True)) if adapted.attached(kernel) else None
    seeded = replace(how.train, seed=work.seed + how.train.seed)
    result = train(
        kernel,
        objective,
        examples,
        seeded,
        valid=valid,
        folder=work.scratch,
        progress=work.progress,
        device=work.device,
    )
    work.spent(tokens=result.tokens, flops=result.flops)
    if after is not None:
        after(kernel)
    save_trained(kernel.cpu(), work.out)
    history = {"examples": len(examples), "validation_examples": len(valid), "rows": told, "history": result.history}
    history |= {} if part is None else {"adapter": part}
    write_atomic(work.out / "training.json", json.dumps(history, ensure_ascii=False, indent=1).encode())
    metrics: dict[str, Scalar] = {"steps": result.steps, "examples": len(examples), "stopped": result.stopped_because}
    last = [row["loss"] for row in result.history if "loss" in row]
    metrics |= {"train_loss": round(last[-1], 4)} if last else {}
    if result.best is not None:
        metrics |= {f"valid_{result.best.metric}": round(result.best.value, 4), "best_step": result.best.step}
    if result.seconds > 0:
        metrics["tokens_per_s"] = round(result.tokens / result.seconds)
    return metrics


def save_trained(kernel: Kernel, out: Path) -> None:
    """Writes the kernel into `out`, its adapter beside it in `adapter/`, and merged into the weights where it can be.

    Where it cannot (prefixes, prompts, bottlenecks), `hf.load` puts the adapter back.
    """
    if not adapted.attached(kernel):
        hf.save(kernel, out)
        return
    peft.save(kernel, out / ADAPTER)
    if adapted.folds(kernel):
        adapted.fold(kernel)
        hf.save(kernel, out)
    else:
        hf.save(kernel, out, adapter=ADAPTER)


def keep_tokenizer(tokenizer: Tokenizer, out: Path, source: Path | None) -> None:
    """Puts the tokenizer beside the weights, byte for byte where it came from a folder in today's format."""
    if source is not None and all((source / name).is_file() for name in TOKENIZER_FILES):
        for name in TOKENIZER_FILES:
            shutil.copyfile(source / name, out / name)
    else:
        tokenizer.save(out)


def keep_words(tokenizer: Tokenizer, template: ChatTemplate | None, out: Path, source: Path | None) -> None:
    """Puts the tokenizer (as `keep_tokenizer`) and the template, where there is one, beside the weights."""
    keep_tokenizer(tokenizer, out, source)
    if template is not None:
        write_atomic(out / "chat_template.jinja", template.source.encode())


def end_answers(kernel: Kernel, template: ChatTemplate | None) -> None:
    """The tokens that end the template's answers also end what the model writes from now on."""
    before = kernel.config.eos_id
    known = before if isinstance(before, tuple) else () if before is None else (before,)
    if template is not None and (new := tuple(end for end in template.ends if end not in known)):
        kernel.config = kernel.config.replace(eos_id=(*new, *known))
