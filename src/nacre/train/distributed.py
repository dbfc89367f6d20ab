"""The processes of one run. Started by `torchrun`; alone, everything here does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """`size` processes that train one model, this one being `rank`.

    Gradients are summed once per optimiser step over a flat buffer. Each rank's loss is already divided by the count
    over all ranks, so the sum is the gradient of the whole batch, whatever each rank's share of the tokens.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> World:
        """The processes `torchrun` started, by gloo on CPU and nccl on CUDA; or this one alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` added up over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, weights: Sequence[Tensor]) -> None:
        """Adds up the gradients. One that no process has stays None, so that its weight is left alone everywhere."""
        if self.size == 1:
            return
        holders = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32)
        present = self.sum(holders.to(weights[0].device)).tolist()
        shared = [weight for weight, n_holders in zip(weights, present, strict=True) if n_holders]
        for weight in shared:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in shared if weight.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(pieces, gradients, strict=True)])

    def sum_named(self, values: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Adds up float64 pairs by name; a process without some of the names counts as zero there."""
        names = self.names(values)
        zero = torch.zeros(2, dtype=torch.float64, device=device)
        total = self.sum(torch.stack([values.get(name, zero) for name in names]))
        return dict(zip(names, total, strict=True))

    def names(self, values: Iterable[str]) -> list[str]:
        """The names that any process has, sorted."""
        known: list[list[str] | None] = [None] * self.size
        dist.all_gather_object(known, sorted(values))
        return sorted({name for names in known if names for name in names})

    def share_weights(self, weights: Sequence[Tensor]) -> None:
        """Every process starts from the weights of the first."""
        if self.size > 1:
            for weight in weights:
                dist.broadcast(weight.data, src=0)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()
