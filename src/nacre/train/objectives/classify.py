"""Classification of texts, or of pairs of texts, into one of several classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nacre.data.resegment import Resegmenter
from nacre.errors import ConfigError, DataError, closest
from nacre.train.arrays import Int32s, real_positions, stack
from nacre.train.loss import class_loss
from nacre.train.objective import Batch, Loss, Outputs, Row, Tallied, check_kernel, text_field
from nacre.train.objectives.config import ClassifyConfig, ClassLoss, Weighting
from nacre.train.sampling import class_weights

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class ClassExample:
    """`ids` (n,); `token_types` (n,) where there are two texts; `label` indexes the classes; `varied`: each batch sees
    another version of it (subword and token dropout)."""

    ids: Int32s
    token_types: Int32s | None
    label: int
    varied: bool = False


@dataclass(frozen=True)
class ClassBatch(Batch):
    """`ids` (B, T), `mask` (B, T) bool True where real, `token_types` (B, T) or None, `labels` (B,) int64."""

    ids: Tensor
    mask: Tensor
    token_types: Tensor | None
    labels: Tensor
    n_tokens: int


class Labelled(Tallied):
    """What all classifiers share: the classes, their weights, the loss over (B, C) logits."""

    def __init__(self, labels: Sequence[str], weighting: Weighting, beta: float, how: ClassLoss) -> None:
        super().__init__()
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise DataError(
                f"classification needs two or more distinct classes, not {list(labels)}",
                remedy="check the field 'label' of the training rows",
            )
        if weighting != "none" and how.weights is not None:
            raise ConfigError("weighting and explicit class weights are both set", remedy="set one of them")
        if how.weights is not None and len(how.weights) != len(labels):
            raise ConfigError(
                f"{len(how.weights)} class weights for {len(labels)} classes", remedy="give one weight per class"
            )
        self.labels = tuple(labels)
        self.how = how
        self._weighting, self._beta = weighting, beta
        self._index = {label: index for index, label in enumerate(labels)}

    def fit(self, examples: Sequence[Any]) -> list[Any]:
        """The training examples as they are to be trained; class weights are taken from them.

        DataError when only one class is among them.
        """
        found = Counter(example.label for example in examples)
        if len(found) < 2:
            only = self.labels[next(iter(found))] if found else "none"
            raise DataError(
                f"all {len(examples):,} training rows have the one label {only!r}: there is nothing to tell apart",
                remedy="check the field 'label', or add rows of the other classes",
            )
        missing = len(self.labels) - len(found)
        if missing:
            self.note("classes without a training row", missing)
        weights = class_weights([found[index] for index in range(len(self.labels))], self._weighting, self._beta)
        if weights is not None:
            self.how = replace(self.how, weights=weights)
        return list(examples)

    def label_of(self, row: Row) -> int:
        """The index of the row's class; DataError when it has none, or one that was not there in training."""
        if row.get("label") is None:
            raise DataError(
                f"the field 'label' is missing (fields: {', '.join(sorted(row)) or 'none'})",
                remedy="give every row a label, or remove the row",
            )
        name = str(row["label"])
        if name not in self._index:
            raise DataError(
                f"the label {name!r} is not among the {len(self.labels)} classes of the training data",
                remedy=f"{closest(name, self.labels)}; or train with rows of it, or remove the row",
            )
        return self._index[name]

    def count(self, batch: Any) -> int:
        return len(batch.labels)

    def outputs(self, kernel: Kernel, batch: Any) -> Outputs:
        return Outputs(self.logits(kernel, batch), batch.labels)

    def loss_of(self, outputs: Outputs) -> Loss:
        total, rows = class_loss(outputs.logits, outputs.targets, self.how)
        right = (outputs.logits.detach().argmax(-1) == outputs.targets).sum()
        return Loss(total, rows, {"accuracy": (right, rows)})

    def loss(self, kernel: Kernel, batch: Any) -> Loss:
        return self.loss_of(self.outputs(kernel, batch))

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: Any) -> Tensor:
        """(B, C) float32: the probability of each class, rows in the order of the batch."""
        return self.logits(kernel, batch).float().softmax(-1).cpu()

    def logits(self, kernel: Kernel, batch: Any) -> Tensor:
        """(B, C)"""
        raise NotImplementedError


class Classify(Labelled):
    """Rows are `{"text", "label"}`, with a second text in `text_pair` or without; a label is a name from `labels`."""

    def __init__(self, tokenizer: Tokenizer, labels: Sequence[str], config: ClassifyConfig | None = None) -> None:
        self.config = config or ClassifyConfig()
        super().__init__(labels, self.config.weighting, self.config.beta, self.config.loss)
        self.tokenizer = tokenizer
        if self.config.token_dropout and tokenizer.mask_id is None:
            raise ConfigError("token_dropout needs a mask token", remedy="use a tokenizer of the style bert or roberta")

    @cached_property
    def _resegmenter(self) -> Resegmenter:
        return Resegmenter(self.tokenizer)

    def fit(self, examples: Sequence[ClassExample]) -> list[ClassExample]:
        varied = bool(self.config.subword_dropout or self.config.token_dropout)
        return [replace(example, varied=varied) for example in super().fit(examples)]

    def check(self, kernel: Kernel) -> None:
        layouts = ("encoder", "decoder")
        positions = self.config.context
        check_kernel(kernel, self.tokenizer, "classify", heads=("classify",), layouts=layouts, positions=positions)
        check_labels(kernel, self.labels)

    def encode(self, row: Row) -> ClassExample:
        label, text = self.label_of(row), text_field(row, "text")
        if row.get("text_pair") is not None:
            return self._pair(text, text_field(row, "text_pair"), label)
        ids = self.tokenizer.encode(text)
        if len(ids) > self.config.context:
            self.truncated["texts cut at the context"] += 1
            ids = self.tokenizer.encode(text, max_length=self.config.context)
        return ClassExample(np.array(ids, dtype=np.int32), None, label)

    def length(self, example: ClassExample) -> int:
        return len(example.ids)

    def collate(self, examples: Sequence[ClassExample], rng: torch.Generator) -> ClassBatch:
        rows = [self._version(example, rng) if example.varied else example.ids for example in examples]
        ids = stack(rows, self.tokenizer.pad_id or 0)
        types = [
            np.zeros(len(row), np.int32) if one.token_types is None else one.token_types
            for one, row in zip(examples, rows, strict=True)
        ]
        paired = any(example.token_types is not None for example in examples)
        return ClassBatch(
            ids=ids,
            mask=real_positions(rows, ids.shape[1]),
            token_types=stack(types, 0, ids.shape[1]) if paired else None,
            labels=torch.tensor([example.label for example in examples]),
            n_tokens=sum(map(len, rows)),
        )

    def _version(self, example: ClassExample, rng: torch.Generator) -> Int32s:
        """The example's ids segmented anew, and some of its tokens hidden. A pair keeps its segmentation."""
        draws = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
        ids = example.ids
        if self.config.subword_dropout and example.token_types is None:
            other = self._resegmenter.sample(ids.tolist(), self.config.subword_dropout, draws)
            # A finer segmentation may outgrow the context; the text then stays as it was.
            ids = np.array(other, dtype=np.int32) if len(other) <= self.config.context else ids
        if self.config.token_dropout and self.tokenizer.mask_id is not None:
            ordinary = ~np.isin(ids, sorted(self.tokenizer.special_ids))
            hidden = ordinary & (draws.random(len(ids)) < self.config.token_dropout)
            ids = np.where(hidden, np.int32(self.tokenizer.mask_id), ids)
        return ids

    def tokens(self, batch: ClassBatch) -> int:
        return batch.n_tokens

    def logits(self, kernel: Kernel, batch: ClassBatch) -> Tensor:
        hidden = kernel(batch.ids, mask=batch.mask, token_types=batch.token_types).hidden
        return kernel.class_logits(hidden, batch.mask)

    def _pair(self, first: str, second: str, label: int) -> ClassExample:
        pair = self.tokenizer.encode_pair(first, second)
        if len(pair.ids) > self.config.context:
            self.truncated["pairs of texts cut at the context"] += 1
            pair = self.tokenizer.encode_pair(first, second, self.config.context)
        # Families without token types (RoBERTa) give 0 throughout.
        types = np.array(pair.token_types, np.int32) if any(pair.token_types) else None
        return ClassExample(np.array(pair.ids, np.int32), types, label)


def labels_of(rows: Iterable[Row], name: str = "label") -> tuple[str, ...]:
    """The distinct labels of training rows in sorted order, numbers by value. DataError names a row without one."""
    found: set[str] = set()
    for number, row in enumerate(rows, 1):
        if row.get(name) is None:
            raise DataError(
                f"row {number}: the field {name!r} is missing (fields: {', '.join(sorted(row)) or 'none'})",
                remedy="give every row a label, or remove the row",
            )
        found.add(str(row[name]))
    numbers = all(label.lstrip("-").isdecimal() for label in found)
    return tuple(sorted(found, key=int) if numbers else sorted(found))


def check_labels(kernel: Kernel, labels: Sequence[str]) -> None:
    """Raises ConfigError unless the kernel's head names these classes in this order."""
    if tuple(kernel.config.labels) != tuple(labels):
        raise ConfigError(
            f"the kernel's head has the classes {list(kernel.config.labels)[:8]}, the data {list(labels)[:8]}",
            remedy="give the kernel a head for the data: kernel.with_head(..., labels=labels)",
        )
