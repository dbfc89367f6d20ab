"""What objectives of decoders share: runs of tokens, packed into blocks, each predicted from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nacre.data.pack import PackReport, pack
from nacre.errors import ConfigError
from nacre.train.arrays import Int32s, Int64s, padded_length, stack
from nacre.train.loss import cross_entropy, head_cross_entropy, token_nll
from nacre.train.objective import IGNORE, Batch, LanguageScore, Loss, Outputs, Tallied
from nacre.train.objectives.config import TokenLoss

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class Run:
    """n + 1 consecutive tokens of one text: n predictions, of tokens [1:] from tokens [:-1].

    `trained` says which tokens are targets (None: all); `n_bytes` how many UTF-8 bytes each token spells.
    """

    tokens: Int32s
    trained: npt.NDArray[np.bool_] | None = None
    n_bytes: Int32s | None = None

    def __len__(self) -> int:
        return len(self.tokens) - 1

    def part(self, start: int, stop: int) -> Run:
        """Predictions [start, stop) of this run, without copying."""
        cut = slice(start, stop + 1)
        return Run(
            self.tokens[cut],
            None if self.trained is None else self.trained[cut],
            None if self.n_bytes is None else self.n_bytes[cut],
        )

    @property
    def targets(self) -> Int32s:
        """(n,) the token to predict at each position, IGNORE where none is trained."""
        if self.trained is None:
            return self.tokens[1:]
        return np.where(self.trained[1:], self.tokens[1:], np.int32(IGNORE))


@dataclass(frozen=True)
class CausalExample:
    """The runs that share one row of a batch, in order."""

    runs: tuple[Run, ...]


@dataclass(frozen=True)
class CausalBatch(Batch):
    """`ids`, `targets` (B, T) int64; targets are already shifted, and IGNORE where nothing is trained.

    `segments` (B, T) numbers the documents of a row from 1 and is 0 on padding; `positions` (B, T) restart with each.
    `n_bytes` (B, T) belongs to the targets.
    """

    ids: Tensor
    targets: Tensor
    segments: Tensor | None
    positions: Tensor | None
    n_bytes: Tensor | None
    n_trained: int
    n_tokens: int


class DecoderObjective(Tallied):
    """Batches of runs and their loss: runs of `context` predictions at most, packed as `packing` says.

    What is trained is kept as a mask, never derived from token ids: the end of a text is trained even where padding has
    the same id. Right padding needs no attention mask, as no real position sees a later one.
    """

    def __init__(
        self, tokenizer: Tokenizer, context: int, packing: Literal["documents", "stream", "none"], counts_bytes: bool
    ) -> None:
        super().__init__()
        self.tokenizer, self.context, self.packing, self.counts_bytes = tokenizer, context, packing, counts_bytes
        self.report: PackReport | None = None
        """What the last `arrange` packed."""

    @property
    def how(self) -> TokenLoss:
        """How the loss of a token is computed."""
        raise NotImplementedError

    def arrange(self, examples: Sequence[CausalExample]) -> list[CausalExample]:
        runs, size = [run for example in examples for run in example.runs], self.context
        if self.packing == "documents":
            packed, self.report = pack([len(run) for run in runs], size)
            return [
                CausalExample(tuple(runs[piece.document].part(piece.start, piece.stop) for piece in block))
                for block in packed
            ]
        self.note("texts cut into several examples", sum(len(run) > size for run in runs))
        return [
            CausalExample((run.part(start, min(start + size, len(run))),))
            for run in runs
            for start in range(0, len(run), size)
        ]

    def length(self, example: CausalExample) -> int:
        return sum(map(len, example.runs))

    def collate(self, examples: Sequence[CausalExample], rng: torch.Generator) -> CausalBatch:
        del rng
        lengths = [self.length(example) for example in examples]
        width = self.context if self.packing != "none" else padded_length(max(lengths))

        def rows(values: Any, fill: int) -> Tensor:
            return stack([np.concatenate([values(run) for run in one.runs]) for one in examples], fill, width)

        targets = rows(lambda run: run.targets, IGNORE)
        isolated = self.packing == "documents"
        return CausalBatch(
            ids=rows(lambda run: run.tokens[:-1], self.tokenizer.pad_id or 0),
            targets=targets,
            segments=stack([_segments(one) for one in examples], 0, width) if isolated else None,
            positions=rows(lambda run: np.arange(len(run)), 0) if isolated else None,
            n_bytes=rows(lambda run: run.n_bytes[1:], 0) if self.counts_bytes else None,
            n_trained=int((targets != IGNORE).sum()),
            n_tokens=sum(lengths),
        )

    def count(self, batch: CausalBatch) -> int:
        return batch.n_trained

    def tokens(self, batch: CausalBatch) -> int:
        return batch.n_tokens

    def outputs(self, kernel: Kernel, batch: CausalBatch) -> Outputs:
        return Outputs(kernel.lm_logits(self._hidden(kernel, batch)), batch.targets.flatten())

    def loss_of(self, outputs: Outputs) -> Loss:
        return Loss(*cross_entropy(outputs.logits, outputs.targets, self.how))

    def loss(self, kernel: Kernel, batch: CausalBatch) -> Loss:
        hidden = self._hidden(kernel, batch)
        return Loss(*head_cross_entropy(kernel.lm_logits, hidden, batch.targets.flatten(), self.how))

    def _hidden(self, kernel: Kernel, batch: CausalBatch) -> Tensor:
        """(B * T, D)"""
        hidden: Tensor = kernel(batch.ids, segments=batch.segments, positions=batch.positions).hidden.flatten(0, 1)
        return hidden

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: CausalBatch) -> LanguageScore:
        """The score of the trained tokens. ConfigError unless their bytes were counted."""
        if batch.n_bytes is None:
            raise ConfigError("the bytes of the tokens were not counted", remedy="set count_bytes: true to evaluate")
        logits = kernel.lm_logits(self._hidden(kernel, batch))
        nll = token_nll(logits, batch.targets.flatten(), self.how.softcap)
        n_bytes = batch.n_bytes[batch.targets != IGNORE].sum()
        return LanguageScore(float(nll.double().sum()), batch.n_trained, int(n_bytes))


def _segments(example: CausalExample) -> Int64s:
    return np.repeat(np.arange(1, len(example.runs) + 1), [len(run) for run in example.runs])
