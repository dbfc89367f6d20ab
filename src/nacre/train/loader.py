"""Collated batches of every optimiser step, in this process or in workers: the batches are the same."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from nacre.train.objective import Batch, Objective
from nacre.train.order import Order, generator_of


@dataclass(frozen=True)
class Part:
    """One micro batch. `number` is its place within the step, over all processes; `count` what its loss sums over."""

    number: int
    batch: Batch
    rows: int
    count: int
    tokens: int  # real positions
    slots: int  # positions with padding


class Steps(Dataset[list[Part]]):
    """The micro batches of step i that fall to this process: those with `number % size == rank`."""

    def __init__(
        self, objective: Objective[Any, Any], examples: Sequence[Any], order: Order, rank: int = 0, size: int = 1
    ) -> None:
        self.objective, self.examples, self.order = objective, examples, order
        self.rank, self.size = rank, size

    def __getitem__(self, step: int) -> list[Part]:
        parts = enumerate(self.order.step(step))
        return [self._part(step, number, rows) for number, rows in parts if number % self.size == self.rank]

    def _part(self, step: int, number: int, rows: list[int]) -> Part:
        rng = generator_of("collate", self.order.seed, step, number)
        return collate_part(self.objective, [self.examples[row] for row in rows], rng, number)


def collate_part(objective: Objective[Any, Any], examples: list[Any], rng: torch.Generator, number: int) -> Part:
    """One micro batch with its counts, known before any forward pass."""
    batch = objective.collate(examples, rng)
    count, tokens = int(objective.count(batch)), int(objective.tokens(batch))
    # What the kernel computes: the ids of its encoder and of its decoder as they are padded (images have none).
    read = [
        ids.numel() for name in ("ids", "decoder_ids") if isinstance(ids := getattr(batch, name, None), torch.Tensor)
    ]
    return Part(number, batch, len(examples), count, tokens, slots=sum(read) or tokens)


class _From(Sampler[int]):
    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def steps_from(start: int, steps: Steps, workers: int) -> Generator[list[Part], None, None]:
    """The parts of steps `start`, `start + 1` and so on without end. Close it: that ends the workers."""
    if not workers:
        yield from map(steps.__getitem__, itertools.count(start))
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=_From(start),
        num_workers=workers,
        worker_init_fn=_ignore_interrupts,
        # A generator of its own: the loader would otherwise draw from the global one, which a resume could not repeat.
        generator=torch.Generator().manual_seed(0),
    )
    yield from loader


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the whole process group; the main process finishes its step and then stops the workers."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
