"""The work behind `evaluate.preference`. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nacre.data.chat.formats import Pair, pairs
from nacre.data.chat.template import ChatTemplate
from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.lifecycle.evaluate.measured import scalars
from nacre.lifecycle.evaluate.measured_preference import Ranked, preferences
from nacre.lifecycle.evaluate.predict import Answers, Model, open_model, pair_rewards
from nacre.lifecycle.evaluate.preferring import PreferenceEvalConfig
from nacre.lifecycle.evaluate.testset import read_rows, recorded_objective, row_id
from nacre.lifecycle.evaluate.worker import context_of, cut_notes, publish, setting_of
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.train.objectives.answers import Layout
from nacre.train.objectives.config_align import PreferenceConfig, RewardConfig
from nacre.train.objectives.preference import Preference
from nacre.train.objectives.reference import Reference
from nacre.train.objectives.reward import LABELS, Reward


def evaluate_preference(config: PreferenceEvalConfig, work: Work) -> Mapping[str, Scalar]:
    """Held-out pairs, ranked by a reward model or by the policy itself."""
    rows = read_rows(work.inputs["data"], config.split, config.limit)
    folder = work.inputs["model"]
    model = open_model(folder, work.inputs.get("tokenizer"), work.device, config.batch, work.progress)
    context = context_of(config, work, model)
    objective, source = _objective(config, work, model, context)
    numbers, answers = pair_rewards(model, objective, rows)
    read: list[Pair] = [next(iter(pairs([rows[number]]))) for number in numbers]
    ranked = Ranked(read, np.array(answers.values).reshape(-1, 2), source)
    setting = setting_of(config, work, cut_notes(config, context, answers))
    measured = preferences(ranked, setting)
    found = (
        {"id": row_id(rows[number], number + 1), "reward_chosen": a, "reward_rejected": b, "margin": a - b}
        for number, (a, b) in zip(numbers, ranked.rewards.tolist(), strict=True)
    )
    publish(work, measured, found, Answers([], answers.truncated, answers.dropped))
    return scalars(measured.figures, ("pairs", "reward", "accuracy", "margin", "ties", "longer_chosen"))


def _objective(config: PreferenceEvalConfig, work: Work, model: Model, context: int) -> tuple[Any, str]:
    """What gives the rewards, and its name."""
    kernel, tokenizer = model.kernel.config, model.words
    template = ChatTemplate.find(work.inputs.get("tokenizer", work.inputs["model"]), tokenizer)
    if kernel.head == "classify" and kernel.labels == LABELS:
        if kernel.layout == "encoder":
            return Reward(tokenizer, None, RewardConfig(context), layout="encoder"), "reward_model"
        return Reward(tokenizer, template, RewardConfig(context)), "reward_model"
    if kernel.head != "lm":
        raise CheckpointError(
            f"{work.inputs['model']} has the head {kernel.head!r}: it gives answers no reward",
            remedy="give a reward model (tune.reward), or a model that writes (tune.preference)",
        )
    trained = recorded_objective(work.inputs["model"])
    beta = config.beta or trained.get("beta") or 0.1
    layout: Layout = "encoder-decoder" if kernel.layout == "encoder-decoder" else "decoder"
    target = int(trained.get("target_context", PreferenceConfig.target_context))
    start = trained.get("start_id")
    if "reference" not in work.inputs:
        how = PreferenceConfig("simpo", beta, context=context, target_context=target, start_id=start)
        return Preference(tokenizer, template, how, layout=layout), "per_token_reward"
    folder = work.inputs["reference"]
    if hf.load_config(folder).vocab_size != kernel.vocab_size:
        raise CheckpointError(
            f"the reference {folder} has another vocabulary than the model", remedy="give what the model was tuned from"
        )
    reference = Reference(
        lambda: hf.load(folder).float(), batch=config.batch, device=work.device, progress=work.progress
    )
    how = PreferenceConfig("dpo", beta, context=context, target_context=target, start_id=start)
    return Preference(tokenizer, template, how, layout=layout, reference=reference), "implicit_reward"
