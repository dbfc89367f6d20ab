"""Rollouts: answers that the policy draws to prompts, and what they earn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nacre.data.tokenizer import Tokenizer
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.model import Kernel
from nacre.kernel.sampling import SamplingConfig
from nacre.tiers.tune.reinforce.config import RolloutConfig
from nacre.tiers.tune.reinforce.prompts import Prompt
from nacre.tiers.tune.reinforce.rewards.catalogue import Answer, Rewards
from nacre.train.objectives.answers import Side
from nacre.train.order import seed_of

_STREAMS = 2**40  # generation multiplies its seed: larger ones would leave 64 bits


@dataclass(frozen=True)
class Rollout:
    """An answer: `ids` with the end token, where it came; `logprobs` of the distribution they were drawn from; `reward`
    the weighted sum of `parts`. `cut`: it ended at the limit, not by itself."""

    prompt: Prompt
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    cut: bool
    reward: float = 0.0
    parts: dict[str, float] | None = None

    @property
    def side(self) -> Side:
        return Side(np.array(self.prompt.ids, np.int32), np.array(self.ids, np.int32))

    def line(self, iteration: int, advantage: float) -> dict[str, Any]:
        """What `rollouts.jsonl` holds of it; `advantage` is the mean over its tokens."""
        return {
            "iteration": iteration,
            "prompt": [{"role": one["role"], "content": one["content"]} for one in self.prompt.messages],
            "answer": self.text,
            "tokens": len(self.ids),
            "cut": self.cut,
            "reward": round(self.reward, 6),
            "parts": {name: round(value, 6) for name, value in (self.parts or {}).items()},
            "advantage": round(advantage, 6),
        }


class Roller:
    """Draws answers and has them rewarded. Draws depend on (seed, iteration) only."""

    def __init__(self, tokenizer: Tokenizer, rewards: Rewards, config: RolloutConfig, seed: int) -> None:
        self.tokenizer, self.rewards, self.config, self.seed = tokenizer, rewards, config, seed

    @property
    def sampling(self) -> SamplingConfig:
        """The distribution that is drawn from."""
        return SamplingConfig(self.config.temperature, self.config.top_k, self.config.top_p)

    def draw(self, kernel: Kernel, prompts: Sequence[Prompt], iteration: int) -> list[Rollout]:
        """`samples` answers to each prompt, those to the same prompt one after another."""
        asked = [prompt for prompt in prompts for _ in range(self.config.samples)]
        return self._rewarded(self._written(kernel, asked, self.sampling, iteration))

    def greedy(self, kernel: Kernel, prompts: Sequence[Prompt]) -> list[Rollout]:
        """The likeliest answer to each prompt."""
        return self._rewarded(self._written(kernel, prompts, SamplingConfig(temperature=0), 0))

    def _written(
        self, kernel: Kernel, prompts: Sequence[Prompt], sampling: SamplingConfig, iteration: int
    ) -> list[Rollout]:
        found = []
        for start in range(0, len(prompts), self.config.batch):
            part = prompts[start : start + self.config.batch]
            seed = seed_of("rollouts", self.seed, iteration, start) % _STREAMS
            config = GenerationConfig(self.config.max_new_tokens, sampling, seed=seed)
            for prompt, one in zip(part, generate(kernel, [one.ids for one in part], config), strict=True):
                ids = one.ids if one.end is None else [*one.ids, one.end]
                cut = one.stopped in ("length", "context")
                text = self.tokenizer.decode(one.ids)
                found.append(Rollout(prompt, tuple(ids), text, tuple(one.drawn_log_probabilities), cut))
        return found

    def _rewarded(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        answers = [Answer(one.prompt.messages, one.text, one.prompt.row, len(one.ids), one.cut) for one in rollouts]
        return [
            replace(one, reward=reward, parts=parts)
            for one, (reward, parts) in zip(rollouts, self.rewards(answers), strict=True)
        ]
