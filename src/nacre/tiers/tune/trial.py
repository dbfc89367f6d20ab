"""One training run of the search, kept in scratch: a finished one is not repeated, one cut short goes on.

Imports torch.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nacre.data.write import write_json
from nacre.kernel import hf
from nacre.kernel.adapters.config import AdapterConfig
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import Fit, Rows, fit, keep_tokenizer
from nacre.tiers.kernel_answers import KernelAnswers, opened
from nacre.tiers.task import Row
from nacre.tiers.tune.effort import Candidate
from nacre.tiers.tune.setting import JUDGED_IN_SEARCH, Prepared, Setting, prepare
from nacre.tiers.tune.stages import SolveConfig
from nacre.tiers.tune.worker import adapt
from nacre.train.config import TrainConfig

EVALUATIONS = 2  # an epoch


@dataclass(frozen=True)
class Trial:
    """A candidate on the first `rows` of the shuffled training rows for `epochs`; `whole`: the run that may be kept."""

    candidate: Candidate
    rows: int
    epochs: float
    whole: bool

    @property
    def name(self) -> str:
        return f"{self.candidate.name}-{'whole' if self.whole else self.rows}"


@dataclass(frozen=True)
class Result:
    """What came of a trial: the task's metric on validation rows (None without any), and the cost."""

    name: str
    method: str
    rate: float | None
    rows: int
    epochs: float
    whole: bool
    score: float | None
    trained_parameters: int
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    stopped: str = ""
    folder: str = "out"

    def to_dict(self) -> dict[str, Any]:
        """Without what differs from run to run."""
        return {key: value for key, value in asdict(self).items() if key not in ("seconds", "folder")}


def place_of(work: Work, name: str) -> Path:
    """Where a trial is kept."""
    return work.scratch / "trials" / name


def finished(work: Work, name: str) -> Result | None:
    """The result of a trial that came to its end before."""
    file = place_of(work, name) / "result.json"
    return Result(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def fresh_folder(work: Work, name: str) -> Path:
    """An empty folder for the trial's model; what a kill left half-written is removed."""
    out = place_of(work, name) / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return out


def keep(work: Work, result: Result) -> Result:
    """Writes the result, which makes the trial finished."""
    write_json(place_of(work, result.name) / "result.json", asdict(result))
    return result


def run(setting: Setting, trial: Trial, start: Path | None) -> Result:
    """Trains from the model in `start` (None: the base) and judges on validation; what was done before is read."""
    work, name = setting.work, trial.name
    done = finished(work, name)
    if done is not None:
        return done
    began, out, steps = time.monotonic(), fresh_folder(work, name), place_of(work, name) / "steps"
    work.progress.note("trial", name=name, rows=trial.rows, epochs=round(trial.epochs, 3))
    made = prepare(setting, None if trial.whole else setting.order[: trial.rows], start)
    rows = made.rows if trial.whole else Rows(made.rows.train, [])
    config = schedule(setting, trial, made, bool(rows.valid))
    inner = Work(work.inputs, out, steps, seed=work.seed, progress=work.progress, device=work.device)
    trained = adapt(made.kernel, adapter_of(setting.config, trial.candidate.method), inner)
    found = fit(made.kernel, made.objective, rows, Fit(config), inner)
    keep_tokenizer(setting.tokenizer, out, setting.base)
    judged = setting.task.valid if trial.whole else setting.task.valid[:JUDGED_IN_SEARCH]
    result = Result(
        name=name,
        method=trial.candidate.method,
        rate=trial.candidate.rate,
        rows=trial.rows,
        epochs=trial.epochs,
        whole=trial.whole,
        score=score(setting, opened(out, setting.limits, work.device), judged),
        trained_parameters=trained,
        steps=int(found["steps"] or 0),
        tokens=inner.tokens or 0,
        flops=inner.flops or 0.0,
        seconds=round(time.monotonic() - began, 2),
        stopped=str(found["stopped"]),
    )
    if not trial.whole:
        shutil.rmtree(out)
    shutil.rmtree(steps, ignore_errors=True)
    return keep(work, result)


def adapter_of(config: SolveConfig, method: str) -> AdapterConfig | None:
    """What a method trains instead of all weights; None: these."""
    if method == "bottleneck":
        return config.bottleneck
    if method == "bias":
        return AdapterConfig("bias")
    return AdapterConfig.of(config.lora) if method == "lora" else None


def schedule(setting: Setting, trial: Trial, made: Prepared, has_valid: bool) -> TrainConfig:
    """The loop's config. Search trials are not evaluated on their way."""
    batch = min(setting.config.batch_size, len(made.rows.train))
    per_epoch = math.ceil(len(made.rows.train) / batch)
    steps = max(1, math.ceil(trial.epochs * per_epoch))
    if setting.config.max_steps is not None:
        steps = min(steps, setting.config.max_steps)
    watched: dict[str, Any] = {"patience": setting.config.patience, **made.judge} if has_valid else {}
    return TrainConfig(
        max_steps=steps,
        batch_size=batch,
        bucket=setting.task.kind != "rank",  # likeness of length would make negatives too easy to tell
        lr=trial.candidate.rate,
        layer_decay=0.9 if trial.candidate.method == "full" else 1.0,
        warmup=0.1,
        eval_every=min(steps, max(1, per_epoch // EVALUATIONS)),
        keep_checkpoints=1,
        **watched,
    )


def score(setting: Setting, answers: KernelAnswers, rows: Sequence[Row]) -> float | None:
    """The task's own metric on `rows`, by the code that answers in the rung."""
    if not rows:
        return None
    if setting.task.kind == "rank":
        answers.corpus = answers.embedded(setting.valid_corpus)
    values = [answer.value for answer in answers.answer(rows)]
    return setting.task.quality.judge(rows, values).score


def described(result: Result, folder: Path) -> dict[str, Scalar]:
    """The figures of a step that keeps this result."""
    shape = hf.load_config(folder)
    return {
        "method": result.method,
        "learning_rate": result.rate,
        "steps": result.steps,
        "trained_parameters": result.trained_parameters,
        "family": shape.family,
        "layers": shape.layers,
        "width": shape.hidden_size,
    }
