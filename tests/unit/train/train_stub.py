"""A kernel and an objective small enough to check by hand: predict the next id, from an embedding and one layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nacre.kernel.presets import preset
from nacre.train.objective import IGNORE, Batch, Loss

VOCABULARY, WIDTH = 17, 8


class StubKernel(nn.Module):
    def __init__(self, *, dropout: float = 0.0, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(seed)
        # Read only for the count of operations.
        self.config = preset("gpt2", vocab_size=VOCABULARY, hidden_size=WIDTH, layers=2, heads=2, max_positions=64)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.dropout = nn.Dropout(dropout)
        self.recompute = False
        self.to(dtype)

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        yield "embed", self.embed
        for i, block in enumerate(self.blocks):
            yield f"blocks.{i}", block
        yield "norm", self.norm
        yield "head", self.head

    def set_checkpointing(self, on: bool) -> None:
        self.recompute = on

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = checkpoint(self._block, block, x, use_reentrant=False) if self.recompute else self._block(block, x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def _block(self, block: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = x + self.dropout(torch.tanh(block(x)))
        return out


@dataclass(frozen=True)
class StubBatch(Batch):
    ids: Tensor
    targets: Tensor


class NextId:
    """Examples are tuples of ids; a negative id is an input that is not trained as a target."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.dropped: Counter[str] = Counter()
        self.truncated: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()

    def length(self, example: Sequence[int]) -> int:
        return len(example) - 1

    def collate(self, examples: Sequence[Sequence[int]], rng: torch.Generator) -> StubBatch:
        longest = max(map(len, examples))
        rows = torch.full((len(examples), longest), -VOCABULARY)
        for row, example in zip(rows, examples, strict=True):
            row[: len(example)] = torch.tensor(example)
        targets = torch.where(rows[:, 1:] < 0, IGNORE, rows[:, 1:])
        if self.noise:
            hidden = torch.rand(targets.shape, generator=rng) < self.noise
            targets = targets.masked_fill(hidden, IGNORE)
        return StubBatch(rows[:, :-1].abs() % VOCABULARY, targets)

    def watch(self, step: int) -> None:
        del step

    def count(self, batch: StubBatch) -> int:
        return int((batch.targets != IGNORE).sum())

    def tokens(self, batch: StubBatch) -> int:
        return self.count(batch)

    def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
        logits = kernel(batch.ids)
        total = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="sum")
        trained = batch.targets != IGNORE
        hits = ((logits.argmax(-1) == batch.targets) & trained).sum()
        return Loss(total, trained.sum(), {"accuracy": (hits, trained.sum())})


def examples(n: int, seed: int = 0, longest: int = 12) -> list[tuple[int, ...]]:
    """Texts of unequal lengths in which the next id is mostly the last one plus 3."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        length = int(torch.randint(3, longest + 1, (), generator=rng))
        ids = [int(torch.randint(VOCABULARY, (), generator=rng))]
        while len(ids) < length:
            surprise = int(torch.randint(5, (), generator=rng)) == 0
            ids.append(int(torch.randint(VOCABULARY, (), generator=rng)) if surprise else (ids[-1] + 3) % VOCABULARY)
        rows.append(tuple(ids))
    return rows


def weights(kernel: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in kernel.named_parameters()}
