"""Tagging of tokens (characters or words) in the BIO scheme: named entities, slots."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.data.window import token_windows
from nacre.errors import ConfigError, DataError, closest
from nacre.train.arrays import Int32s, real_positions, stack
from nacre.train.objective import IGNORE, Batch, Loss, Outputs, Row, Tallied, check_kernel
from nacre.train.objectives.classify import check_labels
from nacre.train.objectives.config import TagConfig

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class TagExample:
    """A row, or a window of it: `ids` (n,), `targets` (n,) tag indexes or IGNORE, `owners` (n,) the number of the token
    whose first sub-token this is, else -1. `row` is the place of the row among those that were arranged."""

    ids: Int32s
    targets: Int32s
    owners: Int32s
    row: int = 0


@dataclass(frozen=True)
class TagBatch(Batch):
    """`ids`, `targets`, `owners` (B, T) int64, `mask` (B, T) bool True where real, `rows` (B,)."""

    ids: Tensor
    mask: Tensor
    targets: Tensor
    owners: Tensor
    rows: Tensor
    n_trained: int
    n_tokens: int


@dataclass(frozen=True)
class TaggedPart:
    """Predicted `tags` (indexes) of the tokens of row `row` from token `start` on."""

    row: int
    start: int
    tags: tuple[int, ...]


class Tag(Tallied):
    """Rows are `{"tokens", "tags"}`, both of one length; tags are names from `labels`.

    Each token is tokenized alone (with the blank before it that running text would have), so that no sub-token ever
    covers two tokens and every token has one.
    """

    def __init__(self, tokenizer: Tokenizer, labels: Sequence[str], config: TagConfig | None = None) -> None:
        super().__init__()
        self.config = config or TagConfig()
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self._index = {label: index for index, label in enumerate(self.labels)}
        self._inside = [self._index.get("I-" + name[2:], at) for name, at in self._index.items()]
        frame = tokenizer.frame([-1])
        self._before, self._room = frame.index(-1), self.config.context - len(frame) + 1
        if not 0 <= self.config.overlap < self._room:
            raise ConfigError(
                f"windows of {self._room} tokens cannot overlap by {self.config.overlap}",
                remedy="lower the overlap, or raise the context",
            )
        self._pieces = lru_cache(maxsize=1 << 16)(self._encode_token)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_pieces"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._pieces = lru_cache(maxsize=1 << 16)(self._encode_token)

    def check(self, kernel: Kernel) -> None:
        layouts = ("encoder", "decoder")
        check_kernel(kernel, self.tokenizer, "tag", heads=("tag",), layouts=layouts, positions=self.config.context)
        check_labels(kernel, self.labels)

    def encode(self, row: Row) -> TagExample:
        tokens, tags = self._tokens(row), self._tags(row)
        if len(tokens) != len(tags):
            raise DataError(f"{len(tokens)} tokens have {len(tags)} tags", remedy="give every token one tag")
        self.note(
            "tags I- that continue no entity",
            sum(
                tag.startswith("I-") and (before is None or before[1:] != tag[1:])
                for before, tag in zip([None, *tags], tags, strict=False)
            ),
        )
        ids: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        for number, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
            pieces = self._pieces(token, number > 0 and _apart(tokens[number - 1], token))
            rest = len(pieces) - 1
            target = self._index[tag]
            ids += pieces
            targets += [target, *[self._inside[target] if self.config.trained == "all" else IGNORE] * rest]
            owners += [number, *[-1] * rest]
        return TagExample(np.array(ids, np.int32), np.array(targets, np.int32), np.array(owners, np.int32))

    def arrange(self, examples: Sequence[TagExample]) -> list[TagExample]:
        self.note(
            "rows longer than the context, tagged in windows",
            sum(len(example.ids) > self._room for example in examples),
        )
        return [window for row, example in enumerate(examples) for window in self._windows(example, row)]

    def length(self, example: TagExample) -> int:
        return len(example.ids)

    def collate(self, examples: Sequence[TagExample], rng: torch.Generator) -> TagBatch:
        del rng
        rows = [example.ids for example in examples]
        ids = stack(rows, self.tokenizer.pad_id or 0)
        width = ids.shape[1]
        targets = stack([example.targets for example in examples], IGNORE, width)
        return TagBatch(
            ids=ids,
            mask=real_positions(rows, width),
            targets=targets,
            owners=stack([example.owners for example in examples], -1, width),
            rows=torch.tensor([example.row for example in examples]),
            n_trained=int((targets != IGNORE).sum()),
            n_tokens=sum(map(len, rows)),
        )

    def count(self, batch: TagBatch) -> int:
        return batch.n_trained

    def tokens(self, batch: TagBatch) -> int:
        return batch.n_tokens

    def outputs(self, kernel: Kernel, batch: TagBatch) -> Outputs:
        logits = kernel.tag_logits(kernel(batch.ids, mask=batch.mask).hidden).flatten(0, 1).float()
        return Outputs(logits, batch.targets.flatten())

    def loss_of(self, outputs: Outputs) -> Loss:
        logits, targets = outputs.logits, outputs.targets
        smoothing = self.config.label_smoothing
        total = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
        count = (targets != IGNORE).sum()
        return Loss(total, count, {"accuracy": ((logits.detach().argmax(-1) == targets).sum(), count)})

    def loss(self, kernel: Kernel, batch: TagBatch) -> Loss:
        return self.loss_of(self.outputs(kernel, batch))

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: TagBatch) -> list[TaggedPart]:
        """The tags of the tokens that each example owns; `join_parts` puts rows together."""
        tags = kernel.tag_logits(kernel(batch.ids, mask=batch.mask).hidden).argmax(-1).cpu()
        parts = []
        for row, owners, found in zip(batch.rows.tolist(), batch.owners.cpu(), tags, strict=True):
            owned = owners[owners >= 0]
            parts.append(TaggedPart(row, int(owned[0]), tuple(found[owners >= 0].tolist())))
        return parts

    def _windows(self, example: TagExample, row: int) -> list[TagExample]:
        """Windows with special tokens around; the middle of each overlap parts what its two windows own."""
        overlap = self.config.overlap
        spans = token_windows(len(example.ids), self._room, self._room - overlap)
        heads = np.flatnonzero(example.owners >= 0)
        borders = [0]
        for (start, _), (_, end_before) in zip(spans[1:], spans, strict=False):
            # A border lies before a first sub-token that both windows hold, or all of it would fall between them.
            next_head = int(np.searchsorted(heads, (start + end_before) // 2, side="right"))
            borders.append(int(heads[next_head - 1]))
            if borders[-1] < start:
                borders[-1] = int(heads[next_head]) if next_head < len(heads) else len(example.ids)
        borders.append(len(example.ids))
        windows = []
        for (start, stop), low, high in zip(spans, borders, borders[1:], strict=False):
            at = np.arange(start, stop)
            owned = (at >= low) & (at < high)
            if not (owned & (example.owners[start:stop] >= 0)).any():
                continue
            windows.append(
                TagExample(
                    np.array(self.tokenizer.frame(example.ids[start:stop].tolist()), np.int32),
                    self._around(np.where(owned, example.targets[start:stop], np.int32(IGNORE)), IGNORE),
                    self._around(np.where(owned, example.owners[start:stop], np.int32(-1)), -1),
                    row,
                )
            )
        return windows

    def _around(self, values: Int32s, fill: int) -> Int32s:
        after = self.config.context - self._room - self._before
        return np.pad(values, (self._before, after), constant_values=fill)

    def _tokens(self, row: Row) -> list[str]:
        tokens = row.get("tokens")
        if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) and token for token in tokens):
            found = f"fields: {', '.join(sorted(row)) or 'none'}" if "tokens" not in row else f"found {tokens!r:.80}"
            raise DataError(
                f"the field 'tokens' is no list of one or more texts ({found})",
                remedy="give every row a list of characters or words, or remove the row",
            )
        return tokens

    def _tags(self, row: Row) -> list[str]:
        tags = row.get("tags")
        if not isinstance(tags, list):
            raise DataError("the field 'tags' is no list", remedy="give every row one tag for each token")
        for tag in tags:
            if tag not in self._index:
                raise DataError(
                    f"the tag {tag!r} in the field 'tags' is not among the {len(self.labels)} of the training data",
                    remedy=f"{closest(str(tag), self.labels)}; or train with rows of it, or remove the row",
                )
        return tags

    def _encode_token(self, token: str, apart: bool) -> list[int]:
        """The sub-tokens of a token, at least one; pieces that spell only the blank are left out."""
        text = f" {token}" if apart else token
        spans = self.tokenizer.spans(text)
        kept = [one for one, (start, end) in zip(spans.ids, spans.offsets, strict=True) if text[start:end].strip()]
        if kept:
            return kept
        if spans.ids:
            return spans.ids[:1]
        if self.tokenizer.unk_id is None:
            raise DataError(
                f"the tokenizer has nothing for the token {token!r}", remedy="remove it, or use a byte-level tokenizer"
            )
        return [self.tokenizer.unk_id]


def join_parts(parts: Iterable[TaggedPart]) -> dict[int, list[int]]:
    """Row -> the tags of all its tokens, from the parts in any order."""
    rows: dict[int, list[int]] = {}
    for part in sorted(parts, key=lambda part: (part.row, part.start)):
        rows.setdefault(part.row, []).extend(part.tags)
    return rows


def tags_of(rows: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """O, then B- and I- of every entity type in training rows, sorted. DataError on a tag outside the BIO scheme."""
    types: set[str] = set()
    for number, row in enumerate(rows, 1):
        tags = row.get("tags")
        for tag in tags if isinstance(tags, list) else [None]:
            if tag != "O" and not (isinstance(tag, str) and tag[:2] in ("B-", "I-") and tag[2:]):
                raise DataError(
                    f"row {number}: {tag!r} in the field 'tags' is not in the BIO scheme",
                    remedy="tags are O, B-TYPE at the first token of an entity and I-TYPE at its others",
                )
            types.add(tag[2:])
    types.discard("")
    return ("O", *(f"{place}-{name}" for name in sorted(types) for place in "BI"))


def _apart(before: str, token: str) -> bool:
    """Whether running text would have a blank between two tokens: not beside wide (Chinese, Japanese) characters."""
    return not (_is_wide(before[-1]) or _is_wide(token[0]))


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in ("W", "F")
