"""Whether a run that compares answers still learns: margins that never vary, answers that become impossible."""

from __future__ import annotations

import torch
from torch import Tensor

from nacre.errors import TrainingError

_NOISE = 1e-6  # of what margins are made from, by which float32 lets equal ones differ


class Health:
    """Collects on the device and decides when asked, so that a GPU is not waited for at each step.

    It begins anew with a resumed run: it can stop a run later then, never another way.
    """

    def __init__(self, patience: int, max_fall: float = float("inf")) -> None:
        self.patience, self.max_fall = patience, max_fall
        self._range: Tensor | None = None  # lowest and highest margin, the largest size of what it is made of
        self._fall: Tensor | None = None
        self._since: int | None = None
        self._varied = False

    def see(self, margins: Tensor, size: Tensor, fall: Tensor | None = None) -> None:
        """`margins` (B,) of a batch; `size` (N,) what they are differences of; `fall`: nats per token by which good
        answers have become less likely, a scalar."""
        found = torch.stack([-margins.detach().min(), margins.detach().max(), size.detach().abs().max()])
        if not self._varied:
            self._range = found if self._range is None else torch.maximum(self._range, found)
        self._fall = None if fall is None else fall.detach()

    def check(self, step: int) -> None:
        """Raises TrainingError with the reason; `step` counts from 1."""
        if self._fall is not None and float(self._fall) > self.max_fall:
            raise TrainingError(
                f"step {step}: the good answers are {float(self._fall):.1f} nats per token less likely than at first "
                f"(max_fall is {self.max_fall:g}): the run diverges",
                remedy="lower lr, or raise beta (DPO, KTO)",
            )
        if self._varied or self._range is None:
            return
        low, high, size = self._range.tolist()
        self._since = step - 1 if self._since is None else self._since
        if low + high > _NOISE * max(size, 1.0):
            self._varied = True
        elif step - self._since >= self.patience:
            raise TrainingError(
                f"step {step}: the margin has been {high:g} for every pair in {step - self._since} steps: "
                "nothing is learnt",
                remedy="check that something is trained (freeze, adapters, lr) and that the pairs differ",
            )
