"""Which examples are trained when: a pure function of (seed, epoch), and each random draw one of (seed, step, part)."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor

# Batches whose examples are sorted together when examples are grouped by length: long enough to find neighbours of
# like length, short enough that the order stays random.
POOL_BATCHES = 64


def seed_of(purpose: str, *parts: int) -> int:
    """A 63-bit seed for one purpose at one place of the run; unrelated for unrelated places."""
    text = "/".join([purpose, *map(str, parts)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_of(purpose: str, *parts: int) -> torch.Generator:
    """A fresh CPU generator with `seed_of(purpose, *parts)`."""
    return torch.Generator().manual_seed(seed_of(purpose, *parts))


@dataclass
class Order:
    """The examples of every step, in micro batches.

    `lengths`, one per example, groups examples of like length into micro batches: within pools of some batches the
    examples are sorted, cut into micro batches and these shuffled, so that an epoch still sees each example once.
    """

    n_examples: int
    batch_size: int
    micro_batch: int
    seed: int
    shuffle: bool = True
    lengths: Tensor | None = None
    _epoch: int = field(default=-1, init=False)
    _micro_batches: list[list[int]] = field(default_factory=list, init=False)

    @property
    def steps_per_epoch(self) -> int:
        """The last batch of an epoch may be smaller; it is trained too."""
        return -(-self.n_examples // self.batch_size)

    def step(self, step: int) -> list[list[int]]:
        """The micro batches, as indexes of examples, of optimiser step `step` (0-based, over all epochs)."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._micro_batches = epoch, self._arrange(epoch)
        per_step = self.batch_size // self.micro_batch
        return self._micro_batches[batch * per_step : (batch + 1) * per_step]

    def _arrange(self, epoch: int) -> list[list[int]]:
        rng = generator_of("order", self.seed, epoch)
        order = torch.randperm(self.n_examples, generator=rng) if self.shuffle else torch.arange(self.n_examples)
        if self.lengths is None:
            return [part.tolist() for part in torch.split(order, self.micro_batch)]
        micro_batches: list[list[int]] = []
        for pool in torch.split(order, POOL_BATCHES * self.batch_size):
            by_length = pool[self.lengths[pool].argsort(stable=True, descending=True)]
            parts = [part.tolist() for part in torch.split(by_length, self.micro_batch)]
            whole = [part for part in parts if len(part) == self.micro_batch]
            shuffled = torch.randperm(len(whole), generator=rng).tolist() if self.shuffle else range(len(whole))
            # A part that is cut short stays last, so that only the last step of an epoch can be smaller.
            micro_batches += [whole[i] for i in shuffled] + parts[len(whole) :]
        return micro_batches
