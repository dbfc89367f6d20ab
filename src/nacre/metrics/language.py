"""Figures of language modelling, from sums over a text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nacre.errors import DataError


@dataclass(frozen=True)
class LanguageScore:
    """Sums over a text: negative log-likelihood in nats, predicted tokens, UTF-8 bytes, and which tokenizer cut it."""

    nll_nats: float
    tokens: int
    text_bytes: int
    tokenizer: str = ""

    @property
    def perplexity(self) -> float:
        """exp of the mean loss per token: comparable only between models that share the tokenizer."""
        return math.exp(self.nll_nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode one byte of the text: comparable across tokenizers."""
        return self.nll_nats / math.log(2) / self.text_bytes


def compare_language(first: LanguageScore, second: LanguageScore, metric: str = "bits_per_byte") -> float:
    """`second` minus `first`, lower is better.

    DataError for perplexities under different tokenizers (their tokens differ), and for scores of different texts.
    """
    if metric not in ("bits_per_byte", "perplexity"):
        raise DataError(f"no language metric {metric!r}", remedy="use 'bits_per_byte' or 'perplexity'")
    if metric == "perplexity" and (first.tokenizer != second.tokenizer or not first.tokenizer):
        raise DataError(
            f"perplexities under different tokenizers cannot be compared ({first.tokenizer or 'unknown'!r} and "
            f"{second.tokenizer or 'unknown'!r})",
            remedy="compare bits_per_byte, which does not depend on the tokenizer",
        )
    if metric == "bits_per_byte" and first.text_bytes != second.text_bytes:
        raise DataError(
            f"the two scores are of different texts ({first.text_bytes} and {second.text_bytes} bytes)",
            remedy="score both models on the same text",
        )
    return float(getattr(second, metric) - getattr(first, metric))
