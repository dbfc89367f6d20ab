"""Prompts with their answers: how they are read, cut and batched, and how likely a kernel finds the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nacre.data.chat.messages import Message
from nacre.data.chat.template import ChatTemplate
from nacre.errors import ConfigError
from nacre.train.arrays import Int32s, real_positions, stack
from nacre.train.loss import token_nll
from nacre.train.objective import IGNORE, Batch, Tallied

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel

Layout = Literal["decoder", "encoder-decoder"]


@dataclass(frozen=True)
class Side:
    """`source` (n,), the prompt, and `target` (m,), the answer with its end."""

    source: Int32s
    target: Int32s

    def __len__(self) -> int:
        return len(self.source) + len(self.target)


@dataclass(frozen=True)
class Room:
    """Tokens that an example may have. A decoder has `total` for prompt and answer together, an encoder-decoder
    `total` for the prompt and `target` for the answer."""

    total: int
    target: int | None = None


class Reader:
    """Reads prompts with one or more answers for a decoder or an encoder-decoder; counts in `tallied`."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None, room: Room, layout: Layout, tallied: Tallied
    ) -> None:
        if tokenizer.eos_id is None and (template is None or layout == "encoder-decoder"):
            raise ConfigError(
                "the tokenizer has no end-of-sequence token, so a model could not learn where answers end",
                remedy="give a tokenizer with one, or a chat template that ends its turns",
            )
        if template is not None:
            template.check()
        self.tokenizer, self.template, self.layout, self.tallied = tokenizer, template, layout, tallied
        self.room = room

    def read(self, messages: Sequence[Message], tools: Any, answers: Sequence[str]) -> list[Side] | None:
        """Each answer after the prompt, at its permitted length; None is a drop, which is counted."""
        if self.template is not None:
            sides = [self._rendered(self.template, messages, tools, answer) for answer in answers]
        elif len(messages) == 1 and not tools:
            sides = [self._plain(messages[0]["content"], answer) for answer in answers]
        else:
            self.tallied.dropped["conversations of several turns or with tools, which need a template"] += 1
            return None
        return self.fitted(sides)

    def fitted(self, sides: Sequence[Side]) -> list[Side]:
        """Cut to the room: the beginning of the prompt goes first, as much for one answer as for the other, then the
        ends of answers. A quarter of the room stays with the prompt, so that it never goes whole; nor does an answer.
        """
        total, limit = self.room.total, self.room.target
        longest = max(map(len, sides)) if limit is None else max(len(side.source) for side in sides)
        if (over := longest - total) > 0:
            least = total // 4 if limit is None else total
            sides = [Side(self._without_beginning(side.source, over, least), side.target) for side in sides]
            self.tallied.truncated["prompts cut at their beginning"] += 1
        cut = [side.target[: total - len(side.source) if limit is None else limit] for side in sides]
        shorter = sum(len(short) < len(side.target) for short, side in zip(cut, sides, strict=True))
        if shorter:
            self.tallied.truncated["answers cut at the context, without their end"] += shorter
        return [Side(side.source, short) for short, side in zip(cut, sides, strict=True)]

    def _without_beginning(self, source: Int32s, n: int, least: int) -> Int32s:
        """`source` without `n` tokens after its start token; `least` tokens stay where there are as many."""
        begins = len(source) > 0 and int(source[0]) == self.tokenizer.bos_id
        kept = max(len(source) - n, min(least, len(source)))
        return (
            np.concatenate([source[:1], source[len(source) - kept + 1 :]]) if begins else source[len(source) - kept :]
        )

    def _plain(self, prompt: str, answer: str) -> Side:
        bos, eos = self.tokenizer.bos_id, [self.tokenizer.eos_id or 0]
        source, target = (self.tokenizer.encode(text, add_special=False) for text in (prompt, answer))
        source = [*source, *eos] if self.layout == "encoder-decoder" else [*([] if bos is None else [bos]), *source]
        return Side(np.array(source, np.int32), np.array([*target, *eos], np.int32))

    def _rendered(self, template: ChatTemplate, messages: Sequence[Message], tools: Any, answer: str) -> Side:
        turned = template.tokens([*messages, {"role": "assistant", "content": answer}], tools, "last")
        self.tallied.note("tokens that reach over the border of an answer", turned.joined)
        places = np.flatnonzero(turned.trained)
        source, target = turned.ids[: places[0]], turned.ids[places[0] : places[-1] + 1]
        if self.layout == "encoder-decoder":
            end = np.int32(self.tokenizer.eos_id or 0)
            return Side(np.append(source, end), target if target[-1] == end else np.append(target, end))
        return Side(source, target)


@dataclass(frozen=True)
class Sides(Batch):
    """R prompts with answers. Decoder: `ids` (R, T) hold both, `targets` (R, T) are shifted, IGNORE outside answers.
    Encoder-decoder: `ids`, `mask` (R, T) are prompts, `decoder_ids`, `targets` (R, S) answers."""

    ids: Tensor
    mask: Tensor | None
    decoder_ids: Tensor | None
    targets: Tensor

    def part(self, rows: slice) -> Sides:
        """Some of the rows."""
        mask, answers = self.mask, self.decoder_ids
        return Sides(
            self.ids[rows],
            None if mask is None else mask[rows],
            None if answers is None else answers[rows],
            self.targets[rows],
        )


def collate(sides: Sequence[Side], pad: int, start: int | None) -> Sides:
    """`start`: the token from which an encoder-decoder's answers start; None for a decoder, whose padding stands on
    the right, where no real position looks: it needs no mask."""
    if start is None:
        rows = [np.concatenate([side.source, side.target]) for side in sides]
        masked = [np.concatenate([np.full(len(side.source) - 1, IGNORE), side.target]) for side in sides]
        return Sides(stack([row[:-1] for row in rows], pad), None, None, stack(masked, IGNORE))
    sources = [side.source for side in sides]
    ids = stack(sources, pad)
    shifted = [np.concatenate([[start], side.target[:-1]]) for side in sides]
    targets = stack([side.target for side in sides], IGNORE)
    return Sides(ids, real_positions(sources, ids.shape[1]), stack(shifted, pad), targets)


def answer_logps(kernel: Kernel, batch: Sides, chunk: int = 0) -> tuple[Tensor, Tensor]:
    """(R,) the log-probability of each answer in nats, at least float32, and (R,) its number of tokens.

    Only states before tokens of answers go through the head, `chunk` at a time (0: all at once), which are recomputed
    in the backward.
    """
    given = {} if batch.decoder_ids is None else {"mask": batch.mask, "decoder_ids": batch.decoder_ids}
    states: Tensor = kernel(batch.ids, **given).hidden
    answered = batch.targets != IGNORE
    hidden, targets = states[answered], batch.targets[answered]

    def piece(part: Tensor, wanted: Tensor) -> Tensor:
        return -token_nll(kernel.lm_logits(part), wanted)

    if chunk and chunk < len(targets):
        parts = zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
        logps = torch.cat([checkpoint(piece, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
    else:
        logps = piece(hidden, targets)
    counts = answered.sum(1)
    table = torch.zeros(batch.targets.shape, dtype=logps.dtype, device=logps.device).masked_scatter(answered, logps)
    return table.sum(1), counts
