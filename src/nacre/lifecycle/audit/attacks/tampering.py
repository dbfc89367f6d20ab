"""Noise, low-rank changes, parts begun anew: derivations that change numbers and no shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nacre.lifecycle.audit.attacks.model import Model, generator, require

PARTS = {"embedding": ("embed.tokens.weight",), "head": ("lm_head.weight",)}


def add_noise(model: Model, sigma: float, seed: int) -> Model:
    """Gaussian noise of `sigma` times each tensor's own spread (norm gains: times 0.02) on all of them."""
    source, changed = generator(seed), {}
    for name, values in model.state.items():
        spread = values.float().std() if values.dim() == 2 else torch.tensor(0.02)
        changed[name] = values + (sigma * spread * torch.randn(values.shape, generator=source)).to(values.dtype)
    return model.with_state(changed)


def add_low_rank(model: Model, rank: int, size: float, seed: int) -> Model:
    """A random change of `rank` in every matrix of the stack, of `size` times the matrix's Frobenius norm."""
    source, changed = generator(seed), {}
    for name in model.matrices():
        values = model.state[name]
        delta = torch.randn(values.shape[0], rank, generator=source) @ torch.randn(
            rank, values.shape[1], generator=source
        )
        changed[name] = values + (delta * size * values.float().norm() / delta.norm()).to(values.dtype)
    return model.with_state(changed)


def reinitialise(model: Model, parts: Sequence[str], seed: int) -> Model:
    """Draws the `embedding` or the `head` anew with the spread they had; a tied head goes with the embedding."""
    source, changed = generator(seed), {}
    names = [name for part in parts for name in PARTS[part] if name in model.state]
    require(bool(names), f"the model has no own {' or '.join(parts)}", "embedding, or the head of an untied model")
    for name in names:
        values = model.state[name]
        changed[name] = torch.randn(values.shape, generator=source).to(values.dtype) * values.float().std()
    return model.with_state(changed)


def replace_embedding(model: Model, other: Model) -> Model:
    """Takes another model's embedding (and head, where both have one): the loss rises until something is trained."""
    changed = {}
    for name in ("embed.tokens.weight", "lm_head.weight"):
        if name in model.state and name in other.state:
            same = model.state[name].shape == other.state[name].shape
            require(same, f"{name} has another shape in the other model", "models of one vocabulary and width")
            changed[name] = other.state[name].clone()
    return model.with_state(changed)
