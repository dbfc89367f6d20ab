"""Span corruption (T5, section 3.1.4): spans of the text are replaced by sentinels, the decoder writes them out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from nacre.errors import ConfigError
from nacre.train.arrays import Int32s
from nacre.train.objective import MaskedScore, Row, is_blank, text_field
from nacre.train.objectives.config import SpanConfig
from nacre.train.objectives.seq2seq import EncoderDecoder, Seq2SeqBatch, SourceTarget

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


class SpanCorruption(EncoderDecoder):
    """Rows are `{"text"}`. Spans are drawn anew for every batch.

    Texts are cut into parts of equal length of which the corrupted input and the target both fit the context.
    """

    def __init__(self, tokenizer: Tokenizer, config: SpanConfig | None = None) -> None:
        self.config = config or SpanConfig()
        super().__init__(tokenizer, self.config.start_id, self.config.loss)
        self.sentinels = tuple(tokenizer.sentinel_ids)
        if not self.sentinels:
            raise ConfigError(
                "the tokenizer has no sentinels (<extra_id_0> and so on)",
                remedy="train the tokenizer in the style t5, which adds them",
            )
        self._room = longest_text(self.config, len(self.sentinels))

    def check(self, kernel: Kernel) -> None:
        self.check_layout(kernel, "span", self.config.context)

    def encode(self, row: Row) -> SourceTarget | None:
        """The text as `source`, its `target` still empty: `collate` draws it."""
        if is_blank(row, "text"):
            self.dropped["texts that are empty"] += 1
            return None
        ids = np.array(self.tokenizer.encode(text_field(row, "text"), add_special=False), dtype=np.int32)
        if len(ids) < 2:
            self.dropped["texts of one token, of which nothing would be left"] += 1
            return None
        return SourceTarget(ids, ids[:0])

    def arrange(self, examples: Sequence[SourceTarget]) -> list[SourceTarget]:
        texts = [example.source for example in examples]
        self.note("texts cut into several examples", sum(len(text) > self._room for text in texts))
        parts = [part for text in texts for part in np.array_split(text, -(-len(text) // self._room))]
        return [SourceTarget(part, part[:0]) for part in parts]

    def collate(self, examples: Sequence[SourceTarget], rng: torch.Generator) -> Seq2SeqBatch:
        drawn = []
        for example in examples:
            spans = noise_spans(len(example.source), self.config, len(self.sentinels), rng)
            drawn.append(corrupted(example.source, spans, self.sentinels, self.eos_id))
        return self.batch(drawn)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: Seq2SeqBatch) -> MaskedScore:
        """The score of the targets: the noise, its sentinels and the end."""
        nats, correct = self.nll(kernel, batch)
        return MaskedScore(nats, batch.n_trained, correct)


def noise_spans(n: int, config: SpanConfig, most: int, rng: torch.Generator) -> list[tuple[int, int]]:
    """Spans [start, stop) of noise in a text of `n` >= 2 tokens, in order, apart from each other, at most `most`.

    The number of noise tokens is n * density, rounded at random so that it is met on average, in [1, n - 1]. Noise is
    cut into spans, and the rest into the gaps around them, uniformly; a text may begin or end with either, unlike in
    the original, where the last token is always noise.
    """
    n_noise = min(max(int(n * config.density + float(torch.rand((), generator=rng))), 1), n - 1)
    n_spans = min(max(round(n_noise / config.mean_span), 1), n_noise, n - n_noise + 1, most)
    lengths = _composition(n_noise, n_spans, rng)
    gaps = _composition(n - n_noise + 2, n_spans + 1, rng)
    spans, at = [], -1  # only the gaps between spans must not be empty: the first and the last are one too long
    for gap, length in zip(gaps, lengths, strict=False):
        at += gap
        spans.append((at, at + length))
        at += length
    return spans


def corrupted(text: Int32s, spans: Sequence[tuple[int, int]], sentinels: Sequence[int], eos_id: int) -> SourceTarget:
    """The text with every span replaced by its sentinel, and the target: each sentinel followed by its span.

    Both end with `eos_id`. The i-th span takes the i-th sentinel: ids descend in the published T5 vocabularies.
    """
    source: list[int] = []
    target: list[int] = []
    done = 0
    for sentinel, (start, stop) in zip(sentinels, spans, strict=False):
        source += [*text[done:start].tolist(), sentinel]
        target += [sentinel, *text[start:stop].tolist()]
        done = stop
    source += [*text[done:].tolist(), eos_id]
    return SourceTarget(np.array(source, np.int32), np.array([*target, eos_id], np.int32))


def longest_text(config: SpanConfig, most: int) -> int:
    """The longest text of which, however the rounding falls, the corrupted input and the target fit the context."""
    length = 1
    while _widest(length + 1, config, most) <= config.context:
        length += 1
    if length < 2:
        raise ConfigError(f"a context of {config.context} holds no corrupted text", remedy="give 4 or more tokens")
    return length


def _widest(n: int, config: SpanConfig, most: int) -> int:
    least = min(max(int(n * config.density), 1), n - 1)
    greatest = min(max(int(n * config.density) + 1, 1), n - 1)
    n_spans = min(max(round(greatest / config.mean_span), 1), most)
    return max(n - least, greatest) + n_spans + 1


def _composition(total: int, parts: int, rng: torch.Generator) -> list[int]:
    """`parts` positive integers that add up to `total`, every such sequence equally likely."""
    borders = sorted(torch.randperm(total - 1, generator=rng)[: parts - 1].tolist())
    return [stop - start for start, stop in pairwise([-1, *borders, total - 1])]
