"""The reward of a reward model. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError, TrainingError
from nacre.kernel import hf
from nacre.tiers.tune.reinforce.config import Model
from nacre.train.objectives.config_align import RewardConfig
from nacre.train.objectives.reward import LABELS, Reward

if TYPE_CHECKING:
    from nacre.recipe.stage import Work
    from nacre.tiers.tune.reinforce.rewards.catalogue import Answer


class ModelReward:
    """See `Model`. Its tokenizer and template are its own: the policy may have others."""

    needs, cut = None, None

    def __init__(self, settings: Model, work: Work) -> None:
        folder = work.inputs.get("reward_model")
        if folder is None:
            raise ConfigError(
                "the reward model: no model is given", remedy="name one under inputs: reward_model (from tune.reward)"
            )
        tokenizer = Tokenizer.load(folder)
        self.kernel = hf.load(folder).float().eval().to(work.device)
        if self.kernel.config.head != "classify" or len(self.kernel.config.labels) != len(LABELS):
            raise ConfigError(
                f"{folder} gives answers no reward (its head is {self.kernel.config.head!r})",
                remedy="give a model from tune.reward",
            )
        decoder = self.kernel.config.layout == "decoder"
        template = None
        if decoder:
            named = settings.template
            template = ChatTemplate.find(folder, tokenizer) if named is None else ChatTemplate.named(named, tokenizer)
        how = RewardConfig(context=settings.context)
        self.objective = Reward(tokenizer, template, how, layout="decoder" if decoder else "encoder")
        self.clip = settings.clip

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        values: list[float] = []
        start = 0
        while start < len(answers):
            end = start
            while end < len(answers) and answers[end].messages is answers[start].messages:
                end += 1
            found = self.objective.score(self.kernel, answers[start].messages, [one.text for one in answers[start:end]])
            if found is None:
                raise TrainingError(
                    "the reward model cannot read a prompt: " + ", ".join(self.objective.dropped),
                    remedy="give a reward model with a chat template (rewards.model.template)",
                )
            values += found
            start = end
        clip = self.clip
        return values if clip is None else [max(-clip, min(clip, value)) for value in values]
