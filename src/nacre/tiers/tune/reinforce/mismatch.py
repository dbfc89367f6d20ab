"""How far the probabilities of the trainer are from those that answers were drawn with, token by token.

The mean hides it: positive and negative differences cancel, and a few tokens far off weigh little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LOW, _HIGH = 0.9, 1.1


@dataclass(frozen=True)
class Mismatch:
    """`largest`: the largest difference of a token's log-probability, in nats; `outside`: the share of tokens whose
    ratio of probabilities is outside [0.9, 1.1]."""

    largest: float
    outside: float


def mismatch(drawn: Sequence[npt.NDArray[np.floating]], trained: Sequence[npt.NDArray[np.floating]]) -> Mismatch:
    """`drawn`, `trained`: log-probabilities of the same tokens, (m,) for each answer."""
    difference = np.concatenate(trained).astype(np.float64) - np.concatenate(drawn).astype(np.float64)
    ratio = np.exp(difference)
    return Mismatch(float(np.abs(difference).max()), float(((ratio < _LOW) | (ratio > _HIGH)).mean()))
