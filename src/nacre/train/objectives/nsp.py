"""BERT's pretraining: hidden tokens and the relation of two sentences, together (BERT, section 3.1).

The relation is next-sentence prediction, or sentence order (ALBERT, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.data.sentences import sentences
from nacre.errors import ConfigError, DataError
from nacre.train.arrays import real_positions, stack
from nacre.train.loss import token_losses
from nacre.train.masking import Draws, Masked, corrupt, draw, select
from nacre.train.objective import IGNORE, Batch, Loss, Row, Tallied, check_kernel, is_blank, text_field
from nacre.train.objectives.config import PairConfig
from nacre.train.objectives.mlm import ordinary_ids
from nacre.train.wordgroups import WordTokens, cut_evenly, grouped, joined

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel

# [CLS] A [SEP] B [SEP]
_N_SPECIAL = 3
FOLLOWS, DOES_NOT = 0, 1


Sentences = tuple[WordTokens, ...]


@dataclass(frozen=True)
class PairExample:
    """Consecutive sentences of `document`, at least two once arranged; `documents` holds those of every document."""

    sentences: Sentences
    document: int = 0
    documents: tuple[Sentences, ...] = ()


@dataclass(frozen=True)
class PairBatch(Batch):
    """`ids`, `token_types` (B, T), `mask` (B, T) bool True where real, `relations` (B,): FOLLOWS or DOES_NOT.

    `picks` (N,) index the flattened batch, `targets` (N,) are the tokens hidden there (IGNORE where N is padded) and
    `weights` (N,) one over the number of tokens hidden in the same row.
    """

    ids: Tensor
    token_types: Tensor
    mask: Tensor
    relations: Tensor
    picks: Tensor
    targets: Tensor
    weights: Tensor
    n_tokens: int


class PairPrediction(NamedTuple):
    """`follows` (B,) the probability that the second part follows the first, `relations` (B,) the truth."""

    follows: Tensor
    relations: Tensor


class SentencePairs(Tallied):
    """Rows are `{"text"}`, each a document.

    The loss of a row is that of its relation plus the mean over its hidden tokens, and the count is rows: two losses
    with two counts would make the sum depend on how rows are spread over batches. Each pair follows or not by the
    toss of a coin; that, splits, other documents and masks are drawn anew for every batch, row after row.
    """

    def __init__(self, tokenizer: Tokenizer, config: PairConfig | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.config = config or PairConfig()
        cls_id, sep_id, mask_id = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
        if cls_id is None or sep_id is None or (mask_id is None and self.config.rates is not None):
            raise ConfigError(
                "pairs of sentences need the special tokens cls, sep and mask, and the tokenizer lacks one",
                remedy="train the tokenizer in the style bert",
            )
        self._cls, self._sep, self._mask_id = _special(cls_id), _special(sep_id), mask_id
        if self._room < 2:
            raise ConfigError(f"a context of {self.config.context} holds no pair", remedy="give 5 or more")

    @property
    def _room(self) -> int:
        return self.config.context - _N_SPECIAL

    def check(self, kernel: Kernel) -> None:
        layouts = ("encoder",)
        check_kernel(
            kernel, self.tokenizer, "nsp", heads=("pretraining",), layouts=layouts, positions=self.config.context
        )

    def encode(self, row: Row) -> PairExample | None:
        if is_blank(row, "text"):
            self.dropped["documents that are empty"] += 1
            return None
        texts = sentences(text_field(row, "text"))
        cut = [grouped(self.tokenizer, text, self.config.whole_words) for text in texts]
        pieces = [piece for piece in cut if len(piece)]
        if len(pieces) == 1 and len(pieces[0]) > 1:
            self.note("documents of one sentence, halved", 1)
            pieces = cut_evenly(pieces[0], -(-len(pieces[0]) // 2))
        if len(pieces) < 2:
            self.dropped["documents of one token, which make no pair"] += 1
            return None
        return PairExample(tuple(pieces))

    def arrange(self, examples: Sequence[PairExample]) -> list[PairExample]:
        """Documents cut into stretches that fill the context. DataError when there is only one for `nsp`."""
        if self.config.relation == "nsp" and len(examples) < 2:
            raise DataError(
                "next-sentence prediction takes its wrong pairs from other documents, and there is only one",
                remedy="give one row per document, or set relation: sop",
            )
        documents = tuple(self._pieces(example.sentences) for example in examples)
        return [
            PairExample(stretch, document, documents)
            for document, pieces in enumerate(documents)
            for stretch in self._stretches(pieces)
        ]

    def length(self, example: PairExample) -> int:
        return _N_SPECIAL + sum(map(len, example.sentences))

    def collate(self, examples: Sequence[PairExample], rng: torch.Generator) -> PairBatch:
        pairs, relations, drawn = [], [], []
        for example in examples:
            relations.append(_below(2, rng))
            pairs.append(self._pair(example, relations[-1], rng))
            drawn.append(draw(sum(map(len, pairs[-1])) + _N_SPECIAL, rng))
        rows = [self._framed(first, second) for first, second in pairs]
        ids = stack([row.ids for row in rows], self.tokenizer.pad_id or 0)
        types = [np.repeat([0, 1], [len(first) + 2, len(second) + 1]) for first, second in pairs]
        masked = self._masked(ids, rows, drawn)
        row_of, hidden = masked.picks // ids.shape[1], masked.targets != IGNORE
        n_hidden = torch.zeros(len(rows)).index_add_(0, row_of, hidden.float())
        return PairBatch(
            ids=masked.ids,
            token_types=stack(types, 0, ids.shape[1]),
            mask=real_positions([row.ids for row in rows], ids.shape[1]),
            relations=torch.tensor(relations),
            picks=masked.picks,
            targets=masked.targets,
            weights=hidden / n_hidden[row_of].clamp_min(1),
            n_tokens=sum(map(len, rows)),
        )

    def count(self, batch: PairBatch) -> int:
        return len(batch.relations)

    def tokens(self, batch: PairBatch) -> int:
        return batch.n_tokens

    def loss(self, kernel: Kernel, batch: PairBatch) -> Loss:
        hidden = kernel(batch.ids, mask=batch.mask, token_types=batch.token_types).hidden
        logits = kernel.nsp_logits(hidden).float()
        relation = F.cross_entropy(logits, batch.relations, reduction="sum")
        rows = torch.tensor(len(batch.relations), device=hidden.device)
        right = (logits.detach().argmax(-1) == batch.relations).sum()
        metrics = {"relation_loss": (relation.detach(), rows), "relation_accuracy": (right, rows)}
        if not len(batch.picks):
            return Loss(relation, rows, metrics)
        token_logits = kernel.lm_logits(hidden.flatten(0, 1)[batch.picks])
        losses = token_losses(token_logits, batch.targets, self.config.loss)
        hidden_tokens = (batch.targets != IGNORE).sum()
        guessed = (token_logits.detach().argmax(-1) == batch.targets).sum()
        metrics |= {
            "masked_loss": (losses.detach().sum(), hidden_tokens),
            "masked_accuracy": (guessed, hidden_tokens),
        }
        return Loss(relation + (losses * batch.weights).sum(), rows, metrics)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: PairBatch) -> PairPrediction:
        """How likely each pair follows, and whether it does."""
        hidden = kernel(batch.ids, mask=batch.mask, token_types=batch.token_types).hidden
        return PairPrediction(kernel.nsp_logits(hidden).float().softmax(-1)[:, FOLLOWS].cpu(), batch.relations.cpu())

    def _pieces(self, sentences: Sentences) -> Sentences:
        """The sentences, those longer than half the context cut and counted: two always fit."""
        longest = self._room // 2
        self.note("sentences longer than half the context, cut", sum(len(one) > longest for one in sentences))
        return tuple(
            piece for one in sentences for piece in (cut_evenly(one, longest) if len(one) > longest else [one])
        )

    def _stretches(self, pieces: Sentences) -> list[Sentences]:
        """Runs of whole sentences that fit the context, two or more each."""
        stretches: list[list[WordTokens]] = [[]]
        for piece in pieces:
            if sum(map(len, stretches[-1])) + len(piece) > self._room:
                stretches.append([])
            stretches[-1].append(piece)
        if len(stretches[-1]) == 1 and len(stretches) > 1:
            # The last sentence alone makes no pair: it takes its predecessor along, which so occurs twice.
            stretches[-1].insert(0, stretches[-2][-1])
        return [tuple(stretch) for stretch in stretches]

    def _pair(self, example: PairExample, relation: int, rng: torch.Generator) -> tuple[WordTokens, WordTokens]:
        sentences = example.sentences
        at = 1 + _below(len(sentences) - 1, rng)
        first, second = joined(sentences[:at]), joined(sentences[at:])
        if relation == FOLLOWS:
            return first, second
        if self.config.relation == "sop":
            return second, first
        return first, self._elsewhere(example, len(second), self._room - len(first), rng)

    def _elsewhere(self, example: PairExample, wanted: int, room: int, rng: torch.Generator) -> WordTokens:
        """Sentences of another document, as long as what they stand for where they can be: length must tell nothing."""
        other = _below(len(example.documents) - 1, rng)
        sentences = example.documents[other + (other >= example.document)]
        last_start, left = len(sentences) - 1, len(sentences[-1])
        while left < wanted and last_start > 0:
            last_start -= 1
            left += len(sentences[last_start])
        start = _below(last_start + 1, rng)
        taken, length = [sentences[start]], len(sentences[start])
        for sentence in sentences[start + 1 :]:
            if length >= wanted or length + len(sentence) > room:
                break
            taken.append(sentence)
            length += len(sentence)
        found = joined(taken)
        return found.part(0, room) if length > room else found

    def _masked(self, ids: Tensor, rows: Sequence[WordTokens], drawn: Sequence[Tensor]) -> Masked:
        rates = self.config.rates
        if rates is None or self._mask_id is None:
            nothing = torch.zeros(0, dtype=torch.int64)
            return Masked(ids, nothing, nothing, 0)
        draws = Draws.of(drawn, ids.shape[1])
        selected = select(stack([row.groups for row in rows], -1, ids.shape[1]), rates.selected, draws)
        return corrupt(ids, selected, self._mask_id, self._ordinary, rates, draws)

    def _framed(self, first: WordTokens, second: WordTokens) -> WordTokens:
        return joined([self._cls, first, self._sep, second, self._sep])

    @cached_property
    def _ordinary(self) -> Tensor:
        return ordinary_ids(self.tokenizer)


def _special(token: int) -> WordTokens:
    return WordTokens(np.array([token], np.int32), np.array([-1], np.int32))


def _below(bound: int, rng: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=rng))
