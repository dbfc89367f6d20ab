"""Causal language modelling: predict each token from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nacre.data.pack import PackReport, pack, stream
from nacre.errors import ConfigError
from nacre.train.arrays import Int32s, Int64s, bytes_per_token, padded_length, stack
from nacre.train.loss import cross_entropy, head_cross_entropy, token_nll
from nacre.train.objective import (
    IGNORE,
    Batch,
    LanguageScore,
    Loss,
    Outputs,
    Row,
    Tallied,
    check_kernel,
    is_blank,
    text_field,
)
from nacre.train.objectives.config import CausalConfig

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


class Causal(Tallied):
    """Rows are `{"text"}`, or `{"source", "target"}` of which only the target and its end are trained.

    What is trained is kept as a mask, never derived from token ids: the end of a text is trained even where padding has
    the same id. Right padding needs no attention mask, as no real position sees a later one.
    """

    def __init__(self, tokenizer: Tokenizer, config: CausalConfig | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.config = config or CausalConfig()
        self.report: PackReport | None = None
        """What the last `arrange` packed."""
        if self.config.add_eos and tokenizer.eos_id is None:
            raise ConfigError(
                "the tokenizer has no end-of-sequence token, so a model could not learn where texts end",
                remedy="train the tokenizer in a style with one (gpt, llama), or set add_eos: false",
            )

    def check(self, kernel: Kernel) -> None:
        check_kernel(
            kernel, self.tokenizer, "causal", heads=("lm",), layouts=("decoder",), positions=self.config.context
        )

    def encode(self, row: Row) -> CausalExample | None:
        run = self._pair(row) if "target" in row else self._document(row)
        if run is not None and len(run) < 1:
            self.dropped["texts of one token, which predict nothing"] += 1
            return None
        return None if run is None else CausalExample((run,))

    def arrange(self, examples: Sequence[CausalExample]) -> list[CausalExample]:
        size = self.config.context
        runs = [run for example in examples for run in example.runs]
        if self.config.packing == "stream":
            blocks, self.report = _stream(runs, size)
            return [CausalExample((block,)) for block in blocks]
        if self.config.packing == "documents":
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
        width = self.config.context if self.config.packing != "none" else padded_length(max(lengths))

        def rows(values: Any, fill: int) -> Tensor:
            return stack([np.concatenate([values(run) for run in one.runs]) for one in examples], fill, width)

        targets = rows(lambda run: run.targets, IGNORE)
        isolated = self.config.packing == "documents"
        return CausalBatch(
            ids=rows(lambda run: run.tokens[:-1], self.tokenizer.pad_id or 0),
            targets=targets,
            segments=stack([_segments(one) for one in examples], 0, width) if isolated else None,
            positions=rows(lambda run: np.arange(len(run)), 0) if isolated else None,
            n_bytes=rows(lambda run: run.n_bytes[1:], 0) if self.config.count_bytes else None,
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
        return Loss(*cross_entropy(outputs.logits, outputs.targets, self.config.loss))

    def loss(self, kernel: Kernel, batch: CausalBatch) -> Loss:
        hidden, how = self._hidden(kernel, batch), self.config.loss
        return Loss(*head_cross_entropy(kernel.lm_logits, hidden, batch.targets.flatten(), how))

    def _hidden(self, kernel: Kernel, batch: CausalBatch) -> Tensor:
        """(B * T, D)"""
        hidden: Tensor = kernel(batch.ids, segments=batch.segments, positions=batch.positions).hidden.flatten(0, 1)
        return hidden

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: CausalBatch) -> LanguageScore:
        """The score of the trained tokens. ConfigError unless `count_bytes` was set."""
        if batch.n_bytes is None:
            raise ConfigError("the bytes of the tokens were not counted", remedy="set count_bytes: true to evaluate")
        logits = kernel.lm_logits(self._hidden(kernel, batch))
        nll = token_nll(logits, batch.targets.flatten(), self.config.loss.softcap)
        n_bytes = batch.n_bytes[batch.targets != IGNORE].sum()
        return LanguageScore(float(nll.double().sum()), batch.n_trained, int(n_bytes))

    def _document(self, row: Row) -> Run | None:
        if is_blank(row, "text"):
            self.dropped["texts that are empty"] += 1
            return None
        ids, n_bytes = self._spelled(text_field(row, "text"))
        # Where one token both begins and ends texts, a stream needs it once between two of them.
        begins = self.config.packing != "stream" or self.tokenizer.bos_id != self.tokenizer.eos_id
        return self._framed([], ids, n_bytes, self._bos if begins else [])

    def _pair(self, row: Row) -> Run | None:
        source = self.tokenizer.encode(text_field(row, "source"), add_special=False)
        ids, n_bytes = self._spelled(text_field(row, "target"))
        run, room = self._framed(source, ids, n_bytes, self._bos), self.config.context
        if len(run) <= room:
            return run
        if len(source) + len(self._bos) > room:
            self.dropped["sources that fill the context and leave no room for a target"] += 1
            return None
        self.truncated["targets cut at the context, without their end"] += 1
        return run.part(0, room)

    def _framed(self, source: list[int], ids: list[int], n_bytes: Int32s | None, before: list[int]) -> Run:
        eos = self.tokenizer.eos_id if self.config.add_eos else None
        after = [] if eos is None else [eos]
        prompt = [*before, *source]
        tokens = np.array([*prompt, *ids, *after], dtype=np.int32)
        trained = np.arange(len(tokens)) >= len(prompt) if source else None
        spelled = None if n_bytes is None else np.pad(n_bytes, (len(prompt), len(after)))
        return Run(tokens, trained, spelled)

    def _spelled(self, text: str) -> tuple[list[int], Int32s | None]:
        if not self.config.count_bytes:
            return self.tokenizer.encode(text, add_special=False), None
        spans = self.tokenizer.spans(text)
        return spans.ids, bytes_per_token(text, spans.offsets)

    @property
    def _bos(self) -> list[int]:
        return [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]


def _segments(example: CausalExample) -> Int64s:
    return np.repeat(np.arange(1, len(example.runs) + 1), [len(run) for run in example.runs])


def _stream(runs: Sequence[Run], size: int) -> tuple[list[Run], PackReport]:
    """The runs one after the other; where one meets the next, the next one's first token is predicted as well."""
    tokens, report = stream([run.tokens for run in runs], size)
    masked, counted = any(run.trained is not None for run in runs), any(run.n_bytes is not None for run in runs)
    trained: list[Any] = [None] * len(tokens)
    n_bytes: list[Any] = [None] * len(tokens)
    if masked:
        trained, _ = stream([np.ones(len(run) + 1, bool) if run.trained is None else run.trained for run in runs], size)
    if counted:
        n_bytes, _ = stream([run.n_bytes for run in runs if run.n_bytes is not None], size)
    return [Run(*columns) for columns in zip(tokens, trained, n_bytes, strict=True)], report
