"""What stands on top of a body: language modelling, masked language modelling, and pooling for classification.

B batch, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.kernel.config import KernelConfig, Pooling
from nacre.kernel.feedforward import ACTIVATIONS
from nacre.kernel.norm import make_norm


class MaskedHead(nn.Module):
    """BERT's masked language model: dense, activation, norm, then the embedding matrix (or an own one) with a bias."""

    def __init__(self, config: KernelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = make_norm(config, config.hidden_size)
        self.decoder = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        # RoBERTa fixes GELU here whatever the body's activation is; BERT shares the body's.
        self.activation = ACTIVATIONS["gelu" if config.family == "roberta" else config.activation]

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """hidden (..., D) and the embedding matrix (V, D) to logits (..., V)."""
        weight = embedding if self.decoder is None else self.decoder.weight
        return F.linear(self.norm(self.activation(self.dense(hidden))), weight, self.bias)


def pool(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """One vector per text, (B, T, D) to (B, D): the first token, the mean of real tokens, or the last real token.

    `mask` (B, T) is True at real tokens; the last real token is found on either padding side. A text without real
    tokens gives zeros as its mean and its first token as its last.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "mean":
        if mask is None:
            return hidden.mean(dim=1)
        weight = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
    if mask is None:
        return hidden[:, -1]
    last = (torch.arange(hidden.shape[1], device=hidden.device) * mask).argmax(dim=1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
