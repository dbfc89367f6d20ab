"""Sequence to sequence: an encoder reads the source, a decoder writes the target (translation, summaries)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.train.arrays import Int32s, bytes_per_token, real_positions, stack
from nacre.train.loss import cross_entropy, head_cross_entropy, token_nll
from nacre.train.objective import IGNORE, Batch, LanguageScore, Loss, Outputs, Row, Tallied, check_kernel, text_field
from nacre.train.objectives.config import Seq2SeqConfig, TokenLoss

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class SourceTarget:
    """`source` (n,) for the encoder, `target` (m,) to be written, which spells `n_bytes` UTF-8 bytes."""

    source: Int32s
    target: Int32s
    n_bytes: int = 0


@dataclass(frozen=True)
class Seq2SeqBatch(Batch):
    """`ids` (B, T), `mask` (B, T) bool True where real; `decoder_ids`, `targets` (B, S): the decoder's input is the
    target one position later, targets are IGNORE on padding."""

    ids: Tensor
    mask: Tensor
    decoder_ids: Tensor
    targets: Tensor
    n_trained: int
    n_tokens: int
    n_bytes: int


class EncoderDecoder(Tallied):
    """What objectives of encoder-decoder kernels share: batches, loss, and the token that starts the decoder."""

    def __init__(self, tokenizer: Tokenizer, start_id: int | None, how: TokenLoss) -> None:
        super().__init__()
        start = tokenizer.pad_id if start_id is None else start_id
        if start is None or tokenizer.eos_id is None:
            raise ConfigError(
                "the decoder needs a token to start from (padding, as a rule) and one to end with",
                remedy="train the tokenizer in the style t5, or set start_id",
            )
        self.tokenizer = tokenizer
        self.start_id, self.eos_id, self.how = start, tokenizer.eos_id, how

    def check_layout(self, kernel: Kernel, objective: str, positions: int) -> None:
        """Raises ConfigError unless the kernel is an encoder-decoder that starts from `start_id`."""
        layouts = ("encoder-decoder",)
        check_kernel(kernel, self.tokenizer, objective, heads=("lm",), layouts=layouts, positions=positions)
        start = kernel.config.decoder_start_id
        if start is not None and start != self.start_id:
            raise ConfigError(
                f"the kernel's decoder starts from token {start}, this objective from {self.start_id}",
                remedy=f"set start_id: {start}, or build the kernel with decoder_start_id={self.start_id}",
            )

    def length(self, example: SourceTarget) -> int:
        return len(example.source) + len(example.target)

    def batch(self, examples: Sequence[SourceTarget]) -> Seq2SeqBatch:
        """Pads and shifts."""
        sources = [example.source for example in examples]
        ids = stack(sources, self.tokenizer.pad_id or 0)
        shifted = [np.concatenate([[self.start_id], example.target[:-1]]) for example in examples]
        n_trained = sum(len(example.target) for example in examples)
        return Seq2SeqBatch(
            ids=ids,
            mask=real_positions(sources, ids.shape[1]),
            decoder_ids=stack(shifted, self.tokenizer.pad_id or 0),
            targets=stack([example.target for example in examples], IGNORE),
            n_trained=n_trained,
            n_tokens=sum(map(len, sources)) + n_trained,
            n_bytes=sum(example.n_bytes for example in examples),
        )

    def count(self, batch: Seq2SeqBatch) -> int:
        return batch.n_trained

    def tokens(self, batch: Seq2SeqBatch) -> int:
        return batch.n_tokens

    def outputs(self, kernel: Kernel, batch: Seq2SeqBatch) -> Outputs:
        return Outputs(kernel.lm_logits(self._hidden(kernel, batch)), batch.targets.flatten())

    def loss_of(self, outputs: Outputs) -> Loss:
        return Loss(*cross_entropy(outputs.logits, outputs.targets, self.how))

    def loss(self, kernel: Kernel, batch: Seq2SeqBatch) -> Loss:
        hidden = self._hidden(kernel, batch)
        return Loss(*head_cross_entropy(kernel.lm_logits, hidden, batch.targets.flatten(), self.how))

    def _hidden(self, kernel: Kernel, batch: Seq2SeqBatch) -> Tensor:
        """(B * S, D)"""
        hidden: Tensor = kernel(batch.ids, mask=batch.mask, decoder_ids=batch.decoder_ids).hidden.flatten(0, 1)
        return hidden

    def nll(self, kernel: Kernel, batch: Seq2SeqBatch) -> tuple[float, int]:
        """(nats, right guesses) over the targets."""
        logits, targets = kernel.lm_logits(self._hidden(kernel, batch)), batch.targets.flatten()
        correct = int((logits.argmax(-1) == targets).sum())
        return float(token_nll(logits, targets, self.how.softcap).double().sum()), correct


class Seq2Seq(EncoderDecoder):
    """Rows are `{"source", "target"}`."""

    def __init__(self, tokenizer: Tokenizer, config: Seq2SeqConfig | None = None) -> None:
        self.config = config or Seq2SeqConfig()
        super().__init__(tokenizer, self.config.start_id, self.config.loss)

    def check(self, kernel: Kernel) -> None:
        self.check_layout(kernel, "seq2seq", max(self.config.context, self.config.target_context))

    def encode(self, row: Row) -> SourceTarget:
        source = self.tokenizer.encode(text_field(row, "source"), add_special=False)
        text = text_field(row, "target")
        spans = self.tokenizer.spans(text)
        room, target_room = self.config.context - 1, self.config.target_context
        if len(source) > room:
            self.truncated["sources cut at the context"] += 1
        target, n_bytes = [*spans.ids, self.eos_id], bytes_per_token(text, spans.offsets)
        if len(target) > target_room:
            self.truncated["targets cut at the context, without their end"] += 1
        return SourceTarget(
            np.array([*source[:room], self.eos_id], np.int32),
            np.array(target[:target_room], np.int32),
            int(n_bytes[:target_room].sum()),
        )

    def collate(self, examples: Sequence[SourceTarget], rng: torch.Generator) -> Seq2SeqBatch:
        del rng
        return self.batch(examples)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: Seq2SeqBatch) -> LanguageScore:
        """The score of the targets given their sources, ends included."""
        nats, _ = self.nll(kernel, batch)
        return LanguageScore(nats, batch.n_trained, batch.n_bytes)
