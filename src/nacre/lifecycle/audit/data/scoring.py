"""A causal model that is asked how likely texts are, within a bound on what that may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacre.data.tokenizer import Tokenizer
from nacre.errors import CheckpointError, DataError
from nacre.kernel import hf
from nacre.kernel.generate import score
from nacre.kernel.model import Kernel
from nacre.lifecycle.audit.said import say

Floats = NDArray[np.float64]
MOST_CONTEXT = 512  # tokens looked at together: longer ones cost more and tell little more


@dataclass(frozen=True)
class Scorer:
    """A model in memory with its tokenizer."""

    kernel: Kernel
    tokenizer: Tokenizer

    @property
    def context(self) -> int:
        """Tokens of one text, the first included."""
        return min(self.kernel.config.max_positions, MOST_CONTEXT)

    @property
    def flops_per_token(self) -> float:
        """Of a forward pass: two for each parameter (Kaplan et al. 2020, section 2.1)."""
        return 2.0 * sum(one.numel() for one in self.kernel.parameters())

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without any at its ends."""
        return self.tokenizer.encode(text, add_special=False)

    def sums(self, texts: Sequence[Sequence[int]]) -> Floats:
        """(N,) log-likelihood in nats of each text, after the token that starts texts where there is one."""
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return np.array([sum(one) for one in score(self.kernel, [[*start, *text] for text in texts])], dtype=np.float64)


def open_scorer(model: Path | Scorer) -> Scorer:
    """The model in a folder. Raises CheckpointError where it is none that predicts the next token."""
    if isinstance(model, Scorer):
        return model
    if not model.is_dir():
        what = say("{name} is no model folder", name=model.name)
        raise CheckpointError(what, remedy="give a folder with a config and weights")
    kernel = hf.load(model, device="cpu").float().eval()
    if kernel.config.head != "lm" or kernel.config.layout != "decoder":
        what = say(
            "{name} does not predict the next token (head {head}, {layout})",
            name=model.name,
            head=repr(kernel.config.head),
            layout=kernel.config.layout,
        )
        raise CheckpointError(what, remedy="give a decoder with its language-model head")
    return Scorer(kernel, Tokenizer.load(model))


def check_finite(likely: Floats) -> None:
    """Raises DataError where a model's answer is no number."""
    n_wrong = int((~np.isfinite(likely)).sum())
    if n_wrong:
        template = "the model gives {n:,} of {all:,} texts a likelihood that is no number"
        raise DataError(say(template, n=n_wrong, all=len(likely)), remedy="look for NaN or infinite weights")
