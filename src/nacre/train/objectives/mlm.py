"""Masked language modelling (BERT, section 3.1): predict tokens that were hidden from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nacre.data.words import word_spans
from nacre.errors import ConfigError
from nacre.train.arrays import Int32s, real_positions, stack
from nacre.train.loss import TokenLoss, cross_entropy
from nacre.train.masking import MaskRates, corrupt, select
from nacre.train.objective import Batch, Loss, Row, Tallied, check_kernel, is_blank, text_field

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class MaskedConfig:
    """`context`: tokens of an example, special ones included. `whole_words`: mask all tokens of a word or none, Chinese
    words by segmenter (Cui et al. 2021, "Pre-training with whole word masking for Chinese BERT")."""

    context: int = 128
    whole_words: bool = True
    rates: MaskRates = field(default_factory=MaskRates)
    loss: TokenLoss = field(default_factory=TokenLoss)


@dataclass(frozen=True)
class MaskedExample:
    """`ids` (n,); `groups` (n,) number the words that are masked as a whole, -1 where nothing may be masked."""

    ids: Int32s
    groups: Int32s


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


class MaskedScore(NamedTuple):
    """Of hidden tokens: negative log-likelihood in nats, how many, how many of them were guessed right.

    It depends on what was hidden, so it is no likelihood of the text and has no bits per byte.
    """

    nll: float
    tokens: int
    correct: int


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

    def encode(self, row: Row) -> MaskedExample | None:
        if is_blank(row, "text"):
            self.dropped["texts that are empty"] += 1
            return None
        example = grouped(self.tokenizer, text_field(row, "text"), self.config.whole_words)
        if (example.groups < 0).all():
            self.dropped["texts without a token that can be masked"] += 1
            return None
        return example

    def arrange(self, examples: Sequence[MaskedExample]) -> list[MaskedExample]:
        """Parts of at most the context, each with the special tokens around it."""
        room = self.config.context - self._around
        self.noted["texts cut into several examples"] += sum(len(example.ids) > room for example in examples)
        parts = [part for example in examples for part in _parts(example, room)]
        unmaskable = sum(bool((part.groups < 0).all()) for part in parts)
        if unmaskable:
            self.dropped["parts of texts without a token that can be masked"] += unmaskable
        return [self._framed(part) for part in parts if (part.groups >= 0).any()]

    def length(self, example: MaskedExample) -> int:
        return len(example.ids)

    def collate(self, examples: Sequence[MaskedExample], rng: torch.Generator) -> MaskedBatch:
        ids = stack([example.ids for example in examples], self.tokenizer.pad_id or 0)
        groups = stack([example.groups for example in examples], -1, ids.shape[1])
        rates = self.config.rates
        masked = corrupt(ids, select(groups, rates.selected, rng), self._mask_id, self._ordinary, rates, rng)
        return MaskedBatch(
            ids=masked.ids,
            mask=real_positions([example.ids for example in examples], ids.shape[1]),
            picks=masked.picks,
            targets=masked.targets,
            n_trained=masked.n_selected,
            n_tokens=sum(len(example.ids) for example in examples),
        )

    def count(self, batch: MaskedBatch) -> int:
        return batch.n_trained

    def tokens(self, batch: MaskedBatch) -> int:
        return batch.n_tokens

    def loss(self, kernel: Kernel, batch: MaskedBatch) -> Loss:
        logits = self._logits(kernel, batch)
        total, count = cross_entropy(logits, batch.targets, self.config.loss)
        correct = (logits.detach().argmax(-1) == batch.targets).sum()
        return Loss(total, count, {"accuracy": (correct, count)})

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

    def _framed(self, part: MaskedExample) -> MaskedExample:
        ids = np.array(self.tokenizer.frame(part.ids.tolist()), dtype=np.int32)
        around = (self._before, self._around - self._before)
        return MaskedExample(ids, np.pad(part.groups, around, constant_values=-1))

    @cached_property
    def _ordinary(self) -> Tensor:
        return ordinary_ids(self.tokenizer)


def ordinary_ids(tokenizer: Tokenizer) -> Tensor:
    """Every id that is not special, (n,) int64: what a random replacement is drawn from."""
    return torch.tensor([index for index in range(len(tokenizer)) if index not in tokenizer.special_ids])


def grouped(tokenizer: Tokenizer, text: str, whole_words: bool) -> MaskedExample:
    """The tokens of `text` without special ones, and the word each belongs to (itself, without `whole_words`)."""
    spans = tokenizer.spans(text)
    ids = np.array(spans.ids, dtype=np.int32)
    groups = np.arange(len(ids), dtype=np.int32)
    if whole_words and len(ids):
        starts = np.array([start for start, _ in word_spans(text)])
        # A token belongs to the word in which its last character lies: a leading blank is part of the token.
        last = np.array([max(start, end - 1) for start, end in spans.offsets])
        words = np.searchsorted(starts, last, side="right")
        groups = np.concatenate([[0], np.cumsum(words[1:] != words[:-1])]).astype(np.int32)
    special = np.isin(ids, list(tokenizer.special_ids))
    return MaskedExample(ids, np.where(special, np.int32(-1), groups))


def _parts(example: MaskedExample, room: int) -> list[MaskedExample]:
    """Parts of nearly equal length, at most `room`, with their words numbered from 0."""
    parts: list[MaskedExample] = []
    start = 0
    while start < len(example.ids):
        stop = _cut(example.groups, start, room)
        groups = example.groups[start:stop]
        shift = groups[groups >= 0].min(initial=len(example.ids))
        parts.append(MaskedExample(example.ids[start:stop], np.where(groups < 0, groups, groups - shift)))
        start = stop
    return parts


def _cut(groups: Int32s, start: int, room: int) -> int:
    """Where a part that begins at `start` ends: between words if it can without halving the part."""
    left = len(groups) - start
    even = start + -(-left // -(-left // room))
    for cut in range(even, (start + even) // 2, -1):
        if cut == len(groups) or groups[cut] < 0 or groups[cut] != groups[cut - 1]:
            return cut
    return even
