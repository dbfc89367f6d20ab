"""What a teacher says of every training row, asked once and kept beside the examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.lineage.durable import write_atomic
from nacre.train.objective import Batch, Predictive
from nacre.train.objectives.classify import Labelled

Ask = Callable[[Predictive[Any, Any], Any, Any], Tensor]
_BATCH = 32
_FILE = "teacher.npy"


@dataclass(frozen=True)
class Taught:
    """An example with its row as the teacher reads it, or with the logits (C,) that the teacher gave it."""

    example: Any
    theirs: Any = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class TaughtBatch(Batch):
    """A batch of the inner objective, and the teacher's logits (B, C) for its rows."""

    inner: Batch
    logits: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        there = self.inner.to(device, non_blocking=non_blocking)
        return replace(self, inner=there, logits=self.logits.to(device, non_blocking=non_blocking))

    @property
    def ids(self) -> Tensor | None:
        """What the kernel reads, for the share of padding."""
        return getattr(self.inner, "ids", None)


def untaught(example: Any) -> Any:
    """The example of the inner objective."""
    return example.example if isinstance(example, Taught) else example


@dataclass
class Answers:
    """Asks the teacher about rows by `ask(objective, batch, device)`. What was said lies in `folder`, which belongs to
    this run: after a kill it is read, not asked again."""

    ask: Ask
    folder: Path | None
    device: torch.device | str

    def beside(self, examples: Sequence[Any], theirs: Sequence[Any], reader: Predictive[Any, Any]) -> list[Taught]:
        """Each example with the logits of its row, which `reader` reads as `theirs`."""
        if not isinstance(reader, Labelled) or any(getattr(one, "varied", False) for one in examples):
            raise ConfigError(
                "a cache keeps one prediction per row: it is for classes of whole rows that stay as they are",
                remedy="leave out cache; or leave out subword_dropout and token_dropout",
            )
        file = None if self.folder is None else self.folder / _FILE
        if file is not None and file.is_file():
            said = torch.from_numpy(np.load(file, allow_pickle=False))
        else:
            said = self._said(theirs, reader)
            if file is not None:
                held = BytesIO()
                np.save(held, said.numpy(), allow_pickle=False)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(file, held.getvalue())
        return [Taught(example, logits=row) for example, row in zip(examples, said, strict=True)]

    def _said(self, examples: Sequence[Any], reader: Predictive[Any, Any]) -> Tensor:
        """(N, C) float32, rows of like length read together."""
        order = sorted(range(len(examples)), key=lambda row: reader.length(examples[row]))
        rows: list[Tensor] = []
        for start in range(0, len(order), _BATCH):
            batch = reader.collate([examples[row] for row in order[start : start + _BATCH]], torch.Generator())
            rows.append(self.ask(reader, batch.to(self.device), self.device).float().cpu())
        said = torch.cat(rows)
        return said[torch.tensor(order).argsort()]
