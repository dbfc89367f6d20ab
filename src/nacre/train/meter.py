"""Sums over the steps since the last report, kept on the device until they are needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nacre.errors import TrainingError


@dataclass
class Meter:
    """Losses and gradient norms stay tensors until `read`: asking a GPU for a number makes it wait."""

    losses: list[Tensor | float] = field(default_factory=list)  # summed over the step
    norms: list[Tensor | float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    told: dict[str, Tensor] = field(default_factory=dict)  # metrics of the objective: (sum, count) by name
    _checked: int = 0

    def add(self, step: int, loss: Tensor, count: int, norm: Tensor, told: Mapping[str, Tensor] | None = None) -> None:
        self.steps.append(step)
        self.losses.append(loss)
        self.counts.append(count)
        self.norms.append(norm)
        for name, pair in (told or {}).items():
            self.told[name] = self.told[name].to(pair.device) + pair if name in self.told else pair

    def check(self) -> None:
        """Raises TrainingError that names the first step whose loss or gradient is not finite."""
        for i in range(self._checked, len(self.steps)):
            loss, norm = float(self.losses[i]), float(self.norms[i])
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"step {self.steps[i] + 1}: the loss is {loss / max(1, self.counts[i]):g} and the norm of the "
                    f"gradient {norm:g}",
                    remedy="lower lr or clip_norm, lengthen warmup, or set precision to float32",
                )
        self._checked = len(self.steps)

    def read(self) -> dict[str, float]:
        """Mean loss per trained token or row, mean gradient norm, what the objective tells; then starts anew."""
        self.check()
        count = sum(self.counts)
        row = {
            "loss": math.fsum(float(loss) for loss in self.losses) / max(1, count),
            "grad_norm": math.fsum(float(norm) for norm in self.norms) / len(self.norms),
        }
        for name, pair in self.told.items():
            value, n = pair.tolist()
            row[name] = value / n if n else math.nan
        self.load_state_dict({"steps": [], "losses": [], "norms": [], "counts": [], "told": {}})
        return row

    def state_dict(self) -> dict[str, Any]:
        """The sums so far as numbers: a resumed run then reports the same means."""
        self.check()
        return {
            "steps": list(self.steps),
            "losses": [float(loss) for loss in self.losses],
            "norms": [float(norm) for norm in self.norms],
            "counts": list(self.counts),
            "told": {name: pair.tolist() for name, pair in self.told.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.counts = list(state["steps"]), list(state["counts"])
        self.losses, self.norms = list(state["losses"]), list(state["norms"])
        self.told = {name: torch.tensor(pair, dtype=torch.float32) for name, pair in state["told"].items()}
        self._checked = len(self.steps)
