"""The work behind `tune.grpo` and `tune.ppo`. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy
from statistics import fmean

from nacre.data.chat.template import ChatTemplate
from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted
from nacre.kernel.adapters.config import chosen
from nacre.kernel.model import Kernel
from nacre.lineage.durable import write_atomic
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import end_answers, keep_words, load_kernel, load_tokenizer, rows_of, save_trained
from nacre.tiers.tune.preferring_worker import template_of
from nacre.tiers.tune.reinforce import critic
from nacre.tiers.tune.reinforce.config import GrpoConfig, PpoConfig
from nacre.tiers.tune.reinforce.logbook import Logbook
from nacre.tiers.tune.reinforce.loop import Outcome, Reference, Task, reinforce
from nacre.tiers.tune.reinforce.policy import Policy
from nacre.tiers.tune.reinforce.prompts import PromptReader
from nacre.tiers.tune.reinforce.rewards.catalogue import Rewards
from nacre.tiers.tune.reinforce.rollouts import Roller
from nacre.tiers.tune.reinforcing import TuneReinforceConfig, settings_of
from nacre.tiers.tune.worker import adapt
from nacre.train.result import training_flops


def tune_reinforced(config: TuneReinforceConfig, work: Work) -> Mapping[str, Scalar]:
    """The model of the step, reinforced; `rollouts.jsonl` and `training.json` lie beside the weights."""
    with closing(Rewards(config.rewards, work)) as rewards:
        return _reinforced(config, rewards, work) | rewards.costs()


def _reinforced(config: TuneReinforceConfig, rewards: Rewards, work: Work) -> dict[str, Scalar]:
    kernel, tokenizer = load_kernel(work.inputs["model"], work), load_tokenizer(work)
    template = template_of(config.template, tokenizer, work)
    settings = settings_of(config)
    roller = Roller(tokenizer, rewards, config.rollouts, work.seed)
    policy = Policy(
        roller.sampling,
        config.policy,
        longest=config.rollouts.max_new_tokens,
        kl=settings.kl if isinstance(settings, GrpoConfig) else None,
        critic=settings.critic if isinstance(settings, PpoConfig) else None,
    )
    policy.check(kernel)
    hf.check_savable(kernel.config)
    end_answers(kernel, template)
    reference = _reference(kernel, config, work)  # attaches the adapter, which may take room of the text
    longest = config.rollouts.max_prompt
    if kernel.room is not None and kernel.config.layout == "decoder":
        longest = min(longest, kernel.room - config.rollouts.max_new_tokens)
    if longest < 1:
        raise ConfigError(
            f"rollouts.max_new_tokens {config.rollouts.max_new_tokens} leaves no room for a prompt: the model takes "
            f"{kernel.room} tokens",
            remedy="lower rollouts.max_new_tokens",
        )
    rows, reader = rows_of(work.inputs["data"], config.limit), PromptReader(tokenizer, template, kernel.config, longest)
    prompts = reader.read(rows.train, roller.rewards.needs, "the training prompts")
    valid = reader.read(rows.valid, roller.rewards.needs, "the validation prompts") if rows.valid else []
    if reader.dropped:
        work.progress.note("prompts dropped", **reader.dropped)
    if isinstance(settings, PpoConfig):
        critic.attach(kernel)
    task = Task(kernel, policy, roller, prompts, valid, reference)
    outcome = reinforce(task, settings, folder=work.scratch, seed=work.seed, progress=work.progress, device=work.device)
    return _kept(outcome, kernel, template, reader, work)


def _reference(kernel: Kernel, config: TuneReinforceConfig, work: Work) -> Reference:
    """Lends the kernel as it is now: itself with the new adapter off, or a copy with what it was saved with."""
    adapter = chosen(config.lora, config.adapter)
    adapt(kernel, adapter, work)
    held = kernel if adapter is not None else deepcopy(kernel).requires_grad_(False).eval().to(work.device)

    @contextmanager
    def lent() -> Iterator[Kernel]:
        with adapted.disabled(held) if held is kernel else nullcontext():
            yield held

    return lent


def _kept(
    outcome: Outcome, kernel: Kernel, template: ChatTemplate | None, reader: PromptReader, work: Work
) -> dict[str, Scalar]:
    """Writes the artifact; the step's metrics."""
    history, tokens = outcome.history, outcome.tokens
    work.spent(tokens=tokens, flops=training_flops(kernel.config, tokens, tokens / max(1, outcome.steps)))
    save_trained(kernel.cpu(), work.out)
    keep_words(reader.tokenizer, template, work.out, work.inputs.get("tokenizer", work.inputs["model"]))
    told = {"rows": {"dropped": dict(reader.dropped)}, "history": history}
    write_atomic(work.out / "training.json", json.dumps(told, ensure_ascii=False, indent=1).encode())
    Logbook(work.scratch).copy(work.out)
    rewards = [row for row in history if "reward" in row]
    looks = [row for row in history if "valid_reward" in row]
    metrics: dict[str, Scalar] = {"iterations": outcome.iterations, "steps": outcome.steps, "stopped": outcome.stopped}
    metrics["reward_first"], last = round(rewards[0]["reward"], 4), rewards[-1]
    metrics |= {name: round(last[name], 4) for name in ("reward", "kl", "entropy", "cut") if name in last}
    for name in (one for one in last if one.endswith("_unscored")):
        metrics[name.removeprefix("reward_")] = round(fmean(row[name] for row in rewards), 4)
    metrics["mismatch_largest"] = round(max(row["mismatch_largest"] for row in rewards), 6)
    if looks:
        metrics |= {f"{name}_first": round(value, 4) for name, value in looks[0].items() if name != "iteration"}
        metrics |= {name: round(value, 4) for name, value in looks[-1].items() if name != "iteration"}
    return metrics
