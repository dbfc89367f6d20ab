"""A kernel with room for more tokens: rows of the embedding, of an own output matrix, and of a head's bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nacre.errors import ConfigError
from nacre.kernel.model import Kernel


@torch.no_grad()
def grow(kernel: Kernel, vocab_size: int) -> int:
    """Gives `kernel` `vocab_size` tokens, in place, and returns how many are new; the old rows keep their bits.

    A new row is the mean of the old ones: no new token is likelier than the average of the old (Hewitt 2021,
    "Initializing new word embeddings for pretrained language models"). ConfigError where rows would have to go.
    """
    new = vocab_size - kernel.config.vocab_size
    if new < 0:
        raise ConfigError(
            f"the kernel embeds {kernel.config.vocab_size:,} tokens and cannot shrink to {vocab_size:,}",
            remedy="keep its rows: a tokenizer may have fewer tokens",
        )
    if new == 0:
        return 0
    assert kernel.embed.tokens is not None
    _grow(kernel.embed.tokens, new)
    kernel.embed.tokens.num_embeddings = vocab_size
    own = [kernel.lm_head, kernel.mlm.decoder if kernel.mlm is not None else None]
    for matrix in own:
        if matrix is not None:
            _grow(matrix, new)
            matrix.out_features = vocab_size
    if kernel.mlm is not None:
        kernel.mlm.bias = _grown(kernel.mlm.bias, new)
    kernel.config = kernel.config.replace(vocab_size=vocab_size)
    return new


def _grow(matrix: nn.Embedding | nn.Linear, new: int) -> None:
    matrix.weight = _grown(matrix.weight, new)


def _grown(old: Tensor, new: int) -> nn.Parameter:
    mean = old.float().mean(dim=0, keepdim=True).to(old.dtype)
    rows = torch.cat((old.detach(), mean.expand(new, *old.shape[1:])))
    return nn.Parameter(rows, requires_grad=old.requires_grad)
