"""Contrast: texts that belong together lie closer than those that do not. Trains embeddings for search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.errors import DataError
from nacre.kernel.heads import pool
from nacre.train.arrays import Int32s, real_positions, stack
from nacre.train.objective import Batch, Loss, Row, Tallied, check_kernel, text_field
from nacre.train.objectives.config import ContrastConfig

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class ContrastExample:
    """`query` (n,) and `positive` (m,) token ids. Both texts and the positive's id are numbered (`asked`, `text`,
    `owner`), so that repetitions are seen; `relevant` numbers the ids of all that answer the query."""

    query: Int32s
    positive: Int32s
    asked: int
    text: int
    owner: int
    relevant: frozenset[int]

    def is_answered_by(self, other: ContrastExample) -> bool:
        """Whether the positive of another row is one of this query too."""
        return other.owner in self.relevant or other.text == self.text or other.asked == self.asked


@dataclass(frozen=True)
class ContrastBatch(Batch):
    """`ids` (B, T) of queries and `positive_ids` (B, S), with masks True where real; `excluded` (B, B) bool: the
    positive of column j is no negative of row i, because it answers that query as well."""

    ids: Tensor
    mask: Tensor
    positive_ids: Tensor
    positive_mask: Tensor
    excluded: Tensor
    n_tokens: int


class Pairs(NamedTuple):
    """Embeddings (B, D) of length 1, row by row of the batch."""

    queries: Tensor
    positives: Tensor


class Contrast(Tallied):
    """Rows are `{"query", "positive"}`, with `positive_id` and `relevant` (the ids of all answers) where known.

    The loss is the cross-entropy of picking a query's own positive among those of the batch, by cosine over
    `temperature` (InfoNCE: van den Oord et al. 2018, equation 4; in-batch negatives: Henderson et al. 2017, section
    4.2). A positive that answers another query of the batch as well is no negative there: known by its id, by its
    text, or because both rows ask the same.

    It is a sum over rows, but what a row is compared with is its micro batch: other than for every other objective, a
    batch cut otherwise has another loss. `train` takes whole batches unless `micro_batch` says otherwise; figures are
    comparable between runs of one batch size.
    """

    def __init__(self, tokenizer: Tokenizer, config: ContrastConfig | None = None) -> None:
        super().__init__()
        self.config = config or ContrastConfig()
        self.tokenizer = tokenizer
        self._numbers: dict[str, int] = {}

    def check(self, kernel: Kernel) -> None:
        heads = ("none", "lm", "mlm", "pretraining", "classify", "tag")
        positions = max(self.config.context, self.config.positive_context)
        check_kernel(
            kernel, self.tokenizer, "contrast", heads=heads, layouts=("encoder", "decoder"), positions=positions
        )

    def encode(self, row: Row) -> ContrastExample:
        query, positive = text_field(row, "query"), text_field(row, "positive")
        known = row.get("positive_id")
        text = self._number(f"text:{positive}")
        own = text if known is None else self._number(f"id:{known}")
        relevant = {self._number(f"id:{one}") for one in row.get("relevant") or ()}
        return ContrastExample(
            self._ids(query, self.config.context, "queries cut at the context"),
            self._ids(positive, self.config.positive_context, "positives cut at the context"),
            self._number(f"query:{query}"),
            text,
            own,
            frozenset(relevant | {own}),
        )

    def fit(self, examples: Sequence[ContrastExample]) -> list[ContrastExample]:
        if len({example.text for example in examples}) < 2:
            raise DataError(
                "all rows have the same positive: there is nothing to tell apart",
                remedy="check the field 'positive', or give rows with other answers",
            )
        return list(examples)

    def length(self, example: ContrastExample) -> int:
        return len(example.query) + len(example.positive)

    def collate(self, examples: Sequence[ContrastExample], rng: torch.Generator) -> ContrastBatch:
        del rng
        queries, positives = [one.query for one in examples], [one.positive for one in examples]
        pad = self.tokenizer.pad_id or 0
        ids, positive_ids = stack(queries, pad), stack(positives, pad)
        excluded = np.array([[one.is_answered_by(other) for other in examples] for one in examples])
        np.fill_diagonal(excluded, False)
        return ContrastBatch(
            ids=ids,
            mask=real_positions(queries, ids.shape[1]),
            positive_ids=positive_ids,
            positive_mask=real_positions(positives, positive_ids.shape[1]),
            excluded=torch.from_numpy(excluded),
            n_tokens=sum(map(len, queries)) + sum(map(len, positives)),
        )

    def count(self, batch: ContrastBatch) -> int:
        return len(batch.ids)

    def tokens(self, batch: ContrastBatch) -> int:
        return batch.n_tokens

    def loss(self, kernel: Kernel, batch: ContrastBatch) -> Loss:
        queries, positives = self._embedded(kernel, batch)
        logits = (queries @ positives.T).float() / self.config.temperature
        logits = logits.masked_fill(batch.excluded, float("-inf"))
        own = torch.arange(len(logits), device=logits.device)
        total = F.cross_entropy(logits, own, reduction="sum")
        if self.config.symmetric:
            total = (total + F.cross_entropy(logits.T, own, reduction="sum")) / 2
        rows = torch.tensor(len(logits), device=logits.device)
        return Loss(total, rows, {"accuracy": ((logits.detach().argmax(-1) == own).sum(), rows)})

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: ContrastBatch) -> Pairs:
        """The embeddings of the batch's queries and positives, float32."""
        queries, positives = self._embedded(kernel, batch)
        return Pairs(queries.float().cpu(), positives.float().cpu())

    def _embedded(self, kernel: Kernel, batch: ContrastBatch) -> Pairs:
        sides = ((batch.ids, batch.mask), (batch.positive_ids, batch.positive_mask))
        found = [pool(kernel(ids, mask=mask).hidden, mask, self.config.pooling) for ids, mask in sides]
        return Pairs(*(F.normalize(one, dim=-1) for one in found))

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _ids(self, text: str, context: int, what: str) -> Int32s:
        ids = self.tokenizer.encode(text)
        if len(ids) > context:
            self.truncated[what] += 1
            ids = self.tokenizer.encode(text, max_length=context)
        return np.array(ids, dtype=np.int32)
