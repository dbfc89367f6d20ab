"""Reward models: one number for an answer to a prompt, learnt from which of two answers was preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from nacre.data.chat.formats import pairs
from nacre.data.chat.messages import Message
from nacre.data.chat.template import ChatTemplate
from nacre.errors import ConfigError, DataError
from nacre.train.arrays import Int32s, real_positions, stack
from nacre.train.objective import Batch, Loss, Row, Tallied, check_kernel
from nacre.train.objectives.answers import Reader, Room
from nacre.train.objectives.classify import check_labels
from nacre.train.objectives.config_align import RewardConfig
from nacre.train.objectives.health import Health
from nacre.train.objectives.preference_losses import bradley_terry

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel

LABELS = ("reward",)
"""The one output of a reward model's `classify` head: `AutoModelForSequenceClassification` reads it as num_labels=1."""


@dataclass(frozen=True)
class Judgeable:
    """A prompt with its answer, `ids` (n,), and where two texts are told apart `token_types` (n,)."""

    ids: Int32s
    token_types: Int32s | None = None


@dataclass(frozen=True)
class RewardExample:
    """The better answer, the worse, and by how much the reward of the first is to be higher."""

    chosen: Judgeable
    rejected: Judgeable
    margin: float = 0.0


@dataclass(frozen=True)
class RewardBatch(Batch):
    """B pairs: rows [0, B) are chosen, [B, 2B) rejected. `ids`, `mask`, `token_types` (2B, T); `margin` (B,)."""

    ids: Tensor
    mask: Tensor
    token_types: Tensor | None
    margin: Tensor
    n_tokens: int


class Reward(Tallied):
    """Rows are preference pairs of any format that `nacre.data.chat.formats` reads, with a number `margin` or without.

    A decoder is scored at its last real token, an encoder through its pooling, on either side of padding the same.
    Metrics: `accuracy`, `margin` (of the two rewards), `reward_chosen`, `reward_rejected`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None = None,
        config: RewardConfig | None = None,
        *,
        layout: Literal["decoder", "encoder"] = "decoder",
    ) -> None:
        super().__init__()
        self.config = config or RewardConfig()
        self.tokenizer, self.layout = tokenizer, layout
        if layout == "encoder" and template is not None:
            raise ConfigError("an encoder reads prompt and answer as a pair of texts", remedy="leave out the template")
        decoder = layout == "decoder"
        self.reader = Reader(tokenizer, template, Room(self.config.context), "decoder", self) if decoder else None
        self.health = Health(self.config.patience)

    def check(self, kernel: Kernel) -> None:
        """ConfigError for an encoder-decoder as well: no class of `transformers` scores with one."""
        layouts, positions = (self.layout,), self.config.context
        check_kernel(kernel, self.tokenizer, "reward", heads=("classify",), layouts=layouts, positions=positions)
        check_labels(kernel, LABELS)

    # --- rows to batches

    def encode(self, row: Row) -> RewardExample | None:
        found = list(pairs([dict(row)], self.dropped))
        sides = self.read(found[0].messages, (found[0].chosen, found[0].rejected), found[0].tools) if found else None
        if sides is None:
            return None
        if np.array_equal(sides[0].ids, sides[1].ids):
            self.dropped["pairs whose answers are the same as far as the context reaches"] += 1
            return None
        margin = row.get("margin", self.config.margin)
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not np.isfinite(margin):
            raise DataError(f"the field 'margin' is {margin!r}, no number", remedy="give a number, or leave it out")
        return RewardExample(sides[0], sides[1], float(margin))

    def read(self, messages: Sequence[Message], answers: Sequence[str], tools: Any = None) -> list[Judgeable] | None:
        """Each answer after the prompt, as the kernel reads it; None is a drop, which is counted."""
        if self.reader is None:
            return self._pairs_of_texts(messages, answers, tools)
        sides = self.reader.read(messages, tools, answers)
        return None if sides is None else [self._scored_at(np.concatenate([one.source, one.target])) for one in sides]

    def _scored_at(self, ids: Int32s) -> Judgeable:
        """Without ends that have the id of padding: `transformers` takes these for padding and reads the score before
        them."""
        real = len(ids)
        while real > 1 and ids[real - 1] == self.tokenizer.pad_id:
            real -= 1
        self.note("answers scored before their end, whose token is that of padding", int(real < len(ids)))
        return Judgeable(ids[:real])

    def _pairs_of_texts(
        self, messages: Sequence[Message], answers: Sequence[str], tools: Any
    ) -> list[Judgeable] | None:
        if len(messages) != 1 or tools:
            self.dropped["conversations of several turns or with tools, which an encoder has no template for"] += 1
            return None
        prompt, room = messages[0]["content"], self.config.context
        found = [self.tokenizer.encode_pair(prompt, answer) for answer in answers]
        if (over := max(len(one.ids) for one in found) - room) > 0:
            self.truncated["prompts cut at their beginning"] += 1
            spans = self.tokenizer.offsets(prompt)
            prompt = prompt[spans[min(over, len(spans) - max(1, room // 4))][0] :] if len(spans) > room // 4 else prompt
            found = [self.tokenizer.encode_pair(prompt, answer) for answer in answers]
            if cut := sum(len(one.ids) > room for one in found):
                self.truncated["answers cut at the context, without their end"] += cut
                found = [self.tokenizer.encode_pair(prompt, answer, room) for answer in answers]
        # Families without token types (RoBERTa) give 0 throughout.
        types = [np.array(one.token_types, np.int32) if any(one.token_types) else None for one in found]
        return [Judgeable(np.array(one.ids, np.int32), kinds) for one, kinds in zip(found, types, strict=True)]

    def length(self, example: RewardExample) -> int:
        return max(len(example.chosen.ids), len(example.rejected.ids))

    def collate(self, examples: Sequence[RewardExample], rng: torch.Generator) -> RewardBatch:
        del rng
        return self._batch(
            [one.chosen for one in examples] + [one.rejected for one in examples], [one.margin for one in examples]
        )

    def _batch(self, sides: Sequence[Judgeable], margins: Sequence[float]) -> RewardBatch:
        rows = [side.ids for side in sides]
        ids = stack(rows, self.tokenizer.pad_id or 0)
        types = [np.zeros(len(one.ids), np.int32) if one.token_types is None else one.token_types for one in sides]
        typed = any(one.token_types is not None for one in sides)
        return RewardBatch(
            ids=ids,
            mask=real_positions(rows, ids.shape[1]),
            token_types=stack(types, 0, ids.shape[1]) if typed else None,
            margin=torch.tensor(margins),
            n_tokens=sum(map(len, rows)),
        )

    def count(self, batch: RewardBatch) -> int:
        return len(batch.margin)

    def tokens(self, batch: RewardBatch) -> int:
        return batch.n_tokens

    # --- loss

    def rewards(self, kernel: Kernel, batch: RewardBatch) -> Tensor:
        """(R,) of every row, at least float32."""
        hidden = kernel(batch.ids, mask=batch.mask, token_types=batch.token_types).hidden
        found = kernel.class_logits(hidden, batch.mask).squeeze(1)
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found

    def loss(self, kernel: Kernel, batch: RewardBatch) -> Loss:
        chosen, rejected = self.rewards(kernel, batch).chunk(2)
        each = bradley_terry(chosen - rejected, batch.margin.to(chosen.dtype))
        if self.config.centre:
            each = each + self.config.centre * (chosen + rejected).square()
        count = torch.tensor(len(batch.margin), device=chosen.device)
        gap = (chosen - rejected).detach()
        if kernel.training:
            self.health.see(gap, torch.cat([chosen, rejected]))
        named = {"accuracy": (gap > 0).float(), "margin": gap}
        named |= {"reward_chosen": chosen.detach(), "reward_rejected": rejected.detach()}
        return Loss(each.sum(), count, {name: (values.sum(), count) for name, values in named.items()})

    def watch(self, step: int) -> None:
        self.health.check(step)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: RewardBatch) -> Tensor:
        """(B, 2) float32: the rewards of the chosen and the rejected answers."""
        return self.rewards(kernel, batch).float().view(2, -1).T.cpu()

    @torch.no_grad()
    def score(self, kernel: Kernel, messages: Sequence[Message], answers: Sequence[str]) -> list[float] | None:
        """The reward of each answer to one prompt; None for a prompt that cannot be read, which is counted."""
        sides = self.read(messages, answers)
        if sides is None:
            return None
        batch = self._batch(sides, [0.0]).to(next(kernel.parameters()).device)
        return [float(value) for value in self.rewards(kernel, batch)]
