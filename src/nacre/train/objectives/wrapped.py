"""An objective around another: it sees the same rows and batches, and only the training loss is another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nacre.train.objective import Loss, Objective, Row

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


class Wrapped:
    """Passes everything on to `inner`. Where the kernel is not training, the loss is the inner one: evaluations compare
    runs with and without the wrapper."""

    def __init__(self, inner: Objective[Any, Any]) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # while a copy is being made, before it has any attribute
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def dropped(self) -> Counter[str]:
        return self.inner.dropped

    @property
    def truncated(self) -> Counter[str]:
        return self.inner.truncated

    @property
    def noted(self) -> Counter[str]:
        return self.inner.noted

    def check(self, kernel: Kernel) -> None:
        self.inner.check(kernel)

    def encode(self, row: Row) -> Any:
        return self.inner.encode(row)

    def arrange(self, examples: Sequence[Any]) -> list[Any]:
        return self.inner.arrange(examples)

    def fit(self, examples: Sequence[Any]) -> list[Any]:
        return self.inner.fit(examples)

    def length(self, example: Any) -> int:
        return self.inner.length(example)

    def collate(self, examples: Sequence[Any], rng: torch.Generator) -> Any:
        return self.inner.collate(examples, rng)

    def count(self, batch: Any) -> int:
        return self.inner.count(batch)

    def tokens(self, batch: Any) -> int:
        return self.inner.tokens(batch)

    def predict(self, kernel: Kernel, batch: Any) -> Any:
        return self.inner.predict(kernel, batch)

    def watch(self, step: int) -> None:
        self.inner.watch(step)

    def loss(self, kernel: Kernel, batch: Any) -> Loss:
        return self.training_loss(kernel, batch) if kernel.training else self.inner.loss(kernel, batch)

    def training_loss(self, kernel: Kernel, batch: Any) -> Loss:
        """The loss of a batch while the kernel is trained."""
        raise NotImplementedError


def told(total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """A pair for `Loss.metrics`."""
    return total.detach(), count
