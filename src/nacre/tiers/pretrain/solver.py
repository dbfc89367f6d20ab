"""Tier 5 solves a task: a tokenizer, a kernel and a head, trained from random weights on the task's own text.

Imports torch. Each phase (tokenizer, warm-up, tuning) is kept in scratch: a kill repeats none that was finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nacre.data.tokenizer import Tokenizer, train
from nacre.data.write import write_json
from nacre.errors import DataError
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.progress import Scalar
from nacre.recipe.scaling import explain
from nacre.recipe.stage import Work
from nacre.tiers.kernel_answers import MODEL, Limits, opened
from nacre.tiers.pretrain import ranking, tuning, warming
from nacre.tiers.pretrain.design import Design, choices, design, tokenizer_config
from nacre.tiers.pretrain.effort import EFFORTS, RECIPES, check_family
from nacre.tiers.pretrain.phases import Phase, Phases
from nacre.tiers.pretrain.stages import SolveConfig
from nacre.tiers.pretrain.texts import Measured, TaskTexts
from nacre.tiers.rung import Manifest, write_manifest
from nacre.tiers.task import Task, load
from nacre.train.order import seed_of

SKIPPED = "skipped: it did not pay at this budget in our measurements; effort thorough lets validation decide"


@dataclass(frozen=True)
class Setting:
    """What every phase of one solution knows."""

    config: SolveConfig
    task: Task
    texts: TaskTexts
    tokenizer: Tokenizer
    design: Design

    def fresh(self, seed: int) -> Kernel:
        """The designed kernel with random weights."""
        given = choices(self.design.family, self.design.sized.shape, self.positions, self.tokenizer)
        given |= dict(RECIPES[self.task.kind].choices)
        generator = torch.Generator().manual_seed(seed_of("initialise", seed))
        return Kernel(preset(self.design.family, **given), generator)

    @property
    def limits(self) -> Limits:
        """How rows are read."""
        return Limits(self.task.kind, self.design.context, self.design.target_context)

    @property
    def positions(self) -> int:
        return max(self.design.context, self.design.target_context)


def solve_task(config: SolveConfig, work: Work) -> Mapping[str, Scalar]:
    """Makes the rung in `work.out`; the figures of the step."""
    task = load(work.inputs["task"])
    check_family(config.preset, task.kind)
    if not task.train:
        raise DataError(f"the task {task.name} has no training rows", remedy="give train.jsonl, or choose another tier")
    texts = TaskTexts(task, work.inputs.get("corpus"))
    found = Measured.of(texts)
    if texts.left_out:
        work.progress.note("texts left out", **texts.left_out)
    phases = Phases(work)
    words = phases.run("tokenizer", lambda inner: _train_tokenizer(task, texts, found, inner))
    tokenizer = Tokenizer.load(words.folder)
    setting = Setting(config, task, texts, tokenizer, design(config, task, tokenizer, found))
    work.progress.note("designed", **_told(setting))
    tuned, warmed, tried = _trained(setting, phases)
    work.spent(tokens=phases.tokens, flops=phases.flops)
    shutil.copytree(tuned.folder, work.out / MODEL)
    if task.kind == "rank":
        opened(work.out / MODEL, setting.limits, work.device).embedded(task.corpus).save(work.out)
    write_json(work.out / "scaling.json", setting.design.to_dict() | {"effort": asdict(EFFORTS[config.effort])})
    (work.out / "scaling.txt").write_text(_explained(setting.design), encoding="utf-8")
    if tried:
        write_json(work.out / "choices.json", {"chosen_on": "valid", "warm_up": tried})
    write_manifest(work.out, _manifest(setting, int(tuned.metrics["parameters"] or 0)))
    return {**_told(setting), **tuned.metrics, "warm_up": warmed, "texts": found.texts, "text_bytes": found.n_bytes}


def _train_tokenizer(task: Task, texts: TaskTexts, found: Measured, work: Work) -> Mapping[str, Scalar]:
    tokenizer = train(texts, tokenizer_config(task, found), work.out, progress=work.progress)
    return {"vocabulary": len(tokenizer)}


def _trained(setting: Setting, phases: Phases) -> tuple[Phase, str, dict[str, float]]:
    """The tuned model, what became of the warm-up in words, and the validation figures it was chosen by."""
    wish, effort = setting.config.warm_up, EFFORTS[setting.config.effort]
    if setting.task.kind == "rank":
        return *ranking.trained(setting, phases), {}
    if wish == "never" or (wish == "auto" and not effort.tries_warm_up):
        return _tuned(setting, phases, None), SKIPPED if wish == "auto" else "never: as configured", {}
    warm = phases.run("warm-up", lambda work: warming.warm_up(setting, work))
    after = _tuned(setting, phases, warm.folder)
    if wish == "always" or not setting.task.valid:
        return after, "always: as configured" if wish == "always" else "done: no validation rows to judge it by", {}
    plain = _tuned(setting, phases, None)
    tried = {"with": tuning.judged(setting, after), "without": tuning.judged(setting, plain)}
    better = tried["with"] > tried["without"]
    return (after if better else plain), f"{'kept' if better else 'dropped'}: chosen on validation", tried


def _tuned(setting: Setting, phases: Phases, start: Path | None) -> Phase:
    name = "tune" if start is None else "tune-warm"
    return phases.run(name, lambda work: tuning.tune(setting, start, work))


def _told(setting: Setting) -> dict[str, Scalar]:
    made, sized = setting.design, setting.design.sized
    return {
        "effort": setting.config.effort,
        "flops_allowed": sized.budget_flops,
        "width": sized.shape.hidden_size,
        "layers": sized.shape.layers,
        "vocabulary": sized.vocab_size,
        "context": made.context,
        "tuning_steps": made.steps,
        "tuning_epochs": round(made.epochs, 2),
        "bound": sized.bound,
    }


def _explained(made: Design) -> str:
    """The size by the rule, and the tuning, which the rule does not bound: labels are learnt over many passes."""
    return (
        f"{explain(made.sized)}\n"
        f"tuning      {made.steps:,} steps of {made.batch_size}, {made.epochs:.3g} passes over the labelled rows "
        f"({made.flops:.3g} FLOPs), stopped early by validation\n"
    )


def _manifest(setting: Setting, parameters: int) -> Manifest:
    task, made = setting.task, setting.design
    shape = made.sized.shape
    return Manifest.of(
        task,
        "pretrain",
        f"{made.family} {shape.layers} x {shape.hidden_size} from scratch, {parameters:,} parameters",
        trained_parameters=parameters,
        owns={
            "kernel": "own",
            "weights": "own",
            "data": "own",
            "prompt": "none",
            "index": "own" if task.kind == "rank" else "none",
        },
        how=setting.limits.how,
    )
