"""Masked language modelling (BERT, section 3.1): predict tokens that were hidden from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.train.arrays import real_positions, stack
from nacre.train.loss import cross_entropy
from nacre.train.masking import Draws, corrupt, draw, select
from nacre.train.objective import Batch, Loss, MaskedScore, Outputs, Row, Tallied, check_kernel, is_blank, text_field
from nacre.train.objectives.config import MaskedConfig, TokenLoss
from nacre.train.wordgroups import WordTokens, cut_evenly, grouped

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """`ids` (B, T) after masking, `mask` (B, T) bool True where real; `picks` (N,) index the flattened batch and
    `targets` (N,) are the hidden tokens, IGNORE where N is padded."""

    ids: Tensor
    mask: Tensor
    picks: Tensor
    targets: Tensor
    n_trained: int
    n_tokens: int


class MaskedLM(Tallied):
    """Rows are `{"text"}`. Masks are drawn anew for every batch (RoBERTa, section 4.1).

    Texts longer than the context are cut into parts of equal length, between words. Only the masked positions go
    through the head.
    """

    def __init__(self, tokenizer: Tokenizer, config: MaskedConfig | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.config = config or MaskedConfig()
        if tokenizer.mask_id is None:
            raise ConfigError(
                "the tokenizer has no mask token", remedy="train the tokenizer in a style with one (bert, roberta)"
            )
        self._mask_id = tokenizer.mask_id
        frame = tokenizer.frame([-1])
        self._before, self._around = frame.index(-1), len(frame) - 1
        if self.config.context <= self._around:
            raise ConfigError(
                f"a context of {self.config.context} leaves no room beside {self._around} special tokens",
                remedy="raise the context",
            )

    def check(self, kernel: Kernel) -> None:
        heads = ("mlm", "pretraining")
        check_kernel(kernel, self.tokenizer, "mlm", heads=heads, layouts=("encoder",), positions=self.config.context)

    def encode(self, row: Row) -> WordTokens | None:
        if is_blank(row, "text"):
            self.dropped["texts that are empty"] += 1
            return None
        example = grouped(self.tokenizer, text_field(row, "text"), self.config.whole_words)
        if not example.maskable:
            self.dropped["texts without a token that can be masked"] += 1
            return None
        return example

    def arrange(self, examples: Sequence[WordTokens]) -> list[WordTokens]:
        """Parts of at most the context, each with the special tokens around it."""
        room = self.config.context - self._around
        self.note("texts cut into several examples", sum(len(example) > room for example in examples))
        parts = [part for example in examples for part in cut_evenly(example, room)]
        unmaskable = sum(not part.maskable for part in parts)
        if unmaskable:
            self.dropped["parts of texts without a token that can be masked"] += unmaskable
        return [self._framed(part) for part in parts if part.maskable]

    def length(self, example: WordTokens) -> int:
        return len(example)

    def collate(self, examples: Sequence[WordTokens], rng: torch.Generator) -> MaskedBatch:
        ids = stack([example.ids for example in examples], self.tokenizer.pad_id or 0)
        groups = stack([example.groups for example in examples], -1, ids.shape[1])
        rates = self.config.rates
        draws = Draws.of([draw(len(example), rng) for example in examples], ids.shape[1])
        masked = corrupt(ids, select(groups, rates.selected, draws), self._mask_id, self._ordinary, rates, draws)
        return MaskedBatch(
            ids=masked.ids,
            mask=real_positions([example.ids for example in examples], ids.shape[1]),
            picks=masked.picks,
            targets=masked.targets,
            n_trained=masked.n_selected,
            n_tokens=sum(map(len, examples)),
        )

    def count(self, batch: MaskedBatch) -> int:
        return batch.n_trained

    def tokens(self, batch: MaskedBatch) -> int:
        return batch.n_tokens

    def outputs(self, kernel: Kernel, batch: MaskedBatch) -> Outputs:
        return Outputs(self._logits(kernel, batch), batch.targets)

    def loss_of(self, outputs: Outputs) -> Loss:
        total, count = cross_entropy(outputs.logits, outputs.targets, self.config.loss)
        correct = (outputs.logits.detach().argmax(-1) == outputs.targets).sum()
        return Loss(total, count, {"accuracy": (correct, count)})

    def loss(self, kernel: Kernel, batch: MaskedBatch) -> Loss:
        return self.loss_of(self.outputs(kernel, batch))

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: MaskedBatch) -> MaskedScore:
        """The score of the hidden tokens."""
        logits = self._logits(kernel, batch)
        total, count = cross_entropy(logits, batch.targets, TokenLoss(softcap=self.config.loss.softcap))
        correct = (logits.argmax(-1) == batch.targets).sum()
        return MaskedScore(float(total), int(count), int(correct))

    def _logits(self, kernel: Kernel, batch: MaskedBatch) -> Tensor:
        """(N, V) at the masked positions."""
        hidden = kernel(batch.ids, mask=batch.mask).hidden.flatten(0, 1)[batch.picks]
        return kernel.lm_logits(hidden)

    def _framed(self, part: WordTokens) -> WordTokens:
        ids = np.array(self.tokenizer.frame(part.ids.tolist()), dtype=np.int32)
        around = (self._before, self._around - self._before)
        return WordTokens(ids, np.pad(part.groups, around, constant_values=-1))

    @cached_property
    def _ordinary(self) -> Tensor:
        return ordinary_ids(self.tokenizer)


def ordinary_ids(tokenizer: Tokenizer) -> Tensor:
    """Every id that is not special, (n,) int64: what a random replacement is drawn from."""
    return torch.tensor([index for index in range(len(tokenizer)) if index not in tokenizer.special_ids])
