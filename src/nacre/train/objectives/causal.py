"""Causal language modelling: predict each token from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nacre.data.pack import PackReport, stream
from nacre.errors import ConfigError
from nacre.train.arrays import Int32s, bytes_per_token
from nacre.train.objective import Row, check_kernel, is_blank, text_field
from nacre.train.objectives.config import CausalConfig, TokenLoss
from nacre.train.objectives.decoder import CausalExample, DecoderObjective, Run

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


class Causal(DecoderObjective):
    """Rows are `{"text"}`, or `{"source", "target"}` of which only the target and its end are trained."""

    def __init__(self, tokenizer: Tokenizer, config: CausalConfig | None = None) -> None:
        self.config = config or CausalConfig()
        super().__init__(tokenizer, self.config.context, self.config.packing, self.config.count_bytes)
        if self.config.add_eos and tokenizer.eos_id is None:
            raise ConfigError(
                "the tokenizer has no end-of-sequence token, so a model could not learn where texts end",
                remedy="train the tokenizer in a style with one (gpt, llama), or set add_eos: false",
            )

    @property
    def how(self) -> TokenLoss:
        return self.config.loss

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
        if self.packing != "stream":
            return super().arrange(examples)
        blocks, self.report = _stream([run for example in examples for run in example.runs], self.context)
        return [CausalExample((block,)) for block in blocks]

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
