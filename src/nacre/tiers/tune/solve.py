"""Tier 4 solves a task: frozen first, then a search over learning rates on parts of the rows, then the best one whole.

The rung holds `model/`, for LoRA also `adapter/` (PEFT's format), for tasks of the kind `rank` the embedded corpus, and
`choices.json` with every trial. Imports torch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nacre.data.write import write_json
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import ADAPTER
from nacre.tiers.kernel_answers import MODEL, opened
from nacre.tiers.rung import Manifest, write_manifest
from nacre.tiers.tune import frozen
from nacre.tiers.tune.effort import EFFORTS, Candidate, Effort, Plan, Wishes, resolve
from nacre.tiers.tune.setting import Setting
from nacre.tiers.tune.stages import SolveConfig
from nacre.tiers.tune.trial import Result, Trial, described, finished, fresh_folder, keep, place_of, run, score
from nacre.train.result import training_flops


def solve_task(config: SolveConfig, work: Work) -> Mapping[str, Scalar]:
    """Makes the rung in `work.out`; the figures of the step."""
    setting = Setting.of(config, work)
    plan, pass_flops = _planned(setting)
    work.progress.note("planned", **_told(plan))
    tried: list[Result] = [_frozen(setting, pass_flops)] if plan.frozen else []
    start = _folder(work, tried[0]) if tried and setting.task.kind == "classify" else None
    if plan.candidates:
        searched = _searched(setting, plan, start)
        tried += searched
        chosen = _best_candidate(plan.candidates, searched)
        whole = Trial(chosen, len(setting.task.train), plan.epochs[chosen.method], whole=True)
        tried.append(run(setting, whole, start))
    best = _best([one for one in tried if one.whole])
    work.spent(tokens=sum(one.tokens for one in tried), flops=sum(one.flops for one in tried))
    _assemble(setting, best, work)
    _record(setting, plan, tried, best)
    return _figures(setting, tried, best)


def _planned(setting: Setting) -> tuple[Plan, float]:
    """What is tried, and the operations of one forward pass over the training rows."""
    config, rows = setting.config, len(setting.task.train)
    pass_flops = training_flops(setting.shape, round(setting.mean_tokens * rows), setting.mean_tokens) / 3
    given = EFFORTS[config.effort]
    effort = Effort(config.flops or given.flops, given.epochs, given.search, given.rates)
    wishes = Wishes(
        methods=config.methods,
        learning_rates={
            "full": config.learning_rates,
            **dict.fromkeys(("lora", "bottleneck", "bias"), config.lora_rates),
        },
        epochs=config.epochs,
        search=config.search if setting.task.valid else 0.0,
    )
    plan = resolve(setting.task.kind, rows, config.batch_size, pass_flops, effort, wishes)
    if plan.frozen and plan.candidates and not setting.task.valid:
        why = "there are no validation rows by which it could be preferred"
        plan = replace(plan, candidates=(), left_out={**dict.fromkeys(plan.epochs, why), **plan.left_out}, epochs={})
    return plan, pass_flops


def _told(plan: Plan) -> dict[str, Scalar]:
    told: dict[str, Scalar] = {"frozen": plan.frozen, "candidates": ", ".join(one.name for one in plan.candidates)}
    told |= {f"epochs_{method}": round(value, 3) for method, value in plan.epochs.items()}
    return told | {f"without_{method}": why for method, why in plan.left_out.items()}


def _folder(work: Work, result: Result) -> Path:
    return place_of(work, result.name) / result.folder


def _frozen(setting: Setting, pass_flops: float) -> Result:
    work, name = setting.work, "frozen"
    done = finished(work, name)
    if done is not None:
        return done
    began, out = time.monotonic(), fresh_folder(work, name)
    rows = len(setting.task.train)
    if setting.task.kind == "classify":
        found = frozen.frozen_classifier(setting, out)
        reached, trained, flops = found["score"], found["trained_parameters"], pass_flops
        work.progress.note("frozen", score=reached, **found["by_strength"])
    else:
        frozen.frozen_ranker(setting, out)
        reached = score(setting, opened(out, setting.limits, work.device), setting.task.valid)
        trained, flops = 0, 0.0
    seconds = round(time.monotonic() - began, 2)
    return keep(
        work,
        Result(name, "frozen", None, rows, 0.0, True, reached, trained, flops=flops, seconds=seconds, stopped="done"),
    )


def _searched(setting: Setting, plan: Plan, start: Path | None) -> list[Result]:
    """Successive halving: every round the better half goes on, on more rows."""
    results: list[Result] = []
    running = list(plan.candidates)
    for one in plan.rounds:
        trials = [run(setting, Trial(candidate, one.rows, 1.0, whole=False), start) for candidate in running]
        results += trials
        # Of equal scores the one named first stays: it is the cheaper.
        ranked = sorted(range(len(running)), key=lambda at: -(trials[at].score or 0.0))
        running = [running[at] for at in sorted(ranked[: -(-len(running) // 2)])]
    return results


def _best_candidate(candidates: Sequence[Candidate], searched: Sequence[Result]) -> Candidate:
    """The winner of the last round; the first candidate where there was no search."""
    if not searched:
        return candidates[0]
    last = [one for one in searched if one.rows == searched[-1].rows]
    best = _best(last)
    return next(one for one in candidates if one.method == best.method and one.rate == best.rate)


def _best(results: Sequence[Result]) -> Result:
    """The best score, of equal ones the first, which is the cheapest; without validation rows the first."""
    return max(results, key=lambda one: -1.0 if one.score is None else one.score)


def _assemble(setting: Setting, best: Result, work: Work) -> None:
    source = _folder(work, best)
    # A bottleneck has no place in the weights: the model loads it from its own folder.
    beside = () if best.method == "bottleneck" else (ADAPTER,)
    shutil.copytree(source, work.out / MODEL, ignore=shutil.ignore_patterns(*beside))
    if (source / ADAPTER).is_dir():
        shutil.copytree(source / ADAPTER, work.out / ADAPTER)
    task = setting.task
    if task.kind == "rank":
        opened(work.out / MODEL, setting.limits, work.device).embedded(task.corpus).save(work.out)
    ways = {
        "frozen": "as it is" if task.kind == "rank" else "frozen, under a logistic regression",
        "lora": f"tuned by LoRA of rank {setting.config.lora.rank}",
        "bias": "tuned in its biases",
        "bottleneck": f"with bottlenecks of {setting.config.bottleneck.width} channels",
        "full": "tuned in full",
    }
    write_manifest(
        work.out,
        Manifest.of(
            task,
            "tune",
            f"{setting.shape.title} {ways[best.method]}",
            trained_parameters=best.trained_parameters,
            owns={
                "kernel": "borrowed",
                "weights": "own" if best.trained_parameters else "borrowed",
                "data": "own",
                "prompt": "none",
                "index": "own" if task.kind == "rank" else "none",
            },
            how=setting.limits.how,
        ),
    )


def _record(setting: Setting, plan: Plan, tried: Sequence[Result], best: Result) -> None:
    write_json(
        setting.work.out / "choices.json",
        {
            "chosen_on": "valid",
            "validation_rows": len(setting.task.valid),
            "metric": setting.task.metric,
            "effort": setting.config.effort,
            "plan": plan.to_dict(),
            "trials": [one.to_dict() for one in tried],
            "chosen": best.name,
        },
    )


def _figures(setting: Setting, tried: Sequence[Result], best: Result) -> dict[str, Scalar]:
    figures: dict[str, Scalar] = {**described(best, setting.work.out / MODEL), "trials": len(tried)}
    for one in tried:
        if one.whole:
            figures[f"valid_{one.method}"] = None if one.score is None else round(one.score, 6)
            figures[f"seconds_{one.method}"] = one.seconds
    return figures
