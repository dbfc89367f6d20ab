"""PPO's critic: one linear layer on the kernel's last states, trained with it and never written into a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nacre.errors import ConfigError
from nacre.kernel.model import Kernel

NAME = "value_head"


def attach(kernel: Kernel) -> None:
    """Gives the kernel a value head that says 0 of everything: the first advantages are the rewards."""
    head = nn.Linear(kernel.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    kernel.add_module(NAME, head.to(next(kernel.parameters()).device))


def detach(kernel: Kernel) -> None:
    """Takes the value head away, if there is one."""
    if hasattr(kernel, NAME):
        delattr(kernel, NAME)


def values_of(kernel: Kernel, states: Tensor) -> Tensor:
    """(N, D) to (N,), what the rest of an answer is expected to earn, at least float32."""
    head = getattr(kernel, NAME, None)
    if head is None:
        raise ConfigError("the kernel has no value head", remedy="critic.attach(kernel)")
    found: Tensor = head(states).squeeze(-1)
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
