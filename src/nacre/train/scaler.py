"""Loss scaling for float16: small gradients are lifted over underflow, overflow is caught and the step tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacre.errors import TrainingError


@dataclass
class LossScaler:
    """Doubles the scale after `patience` good steps, halves it at an overflow (Micikevicius et al. 2018, section 3.2).

    The caller judges by the norm of the *synchronised* gradient, which is the same on every process, and repeats the
    step with the smaller scale: neither the step count nor the schedule moves, and no example is lost.
    """

    scale: float = 65536.0
    patience: int = 2000
    good_steps: int = 0

    def accepted(self, finite: bool, step: int) -> bool:
        """Takes note of one try of `step`; False: try it again. Raises TrainingError when the scale is exhausted."""
        if not finite:
            if self.scale <= 1.0:
                raise TrainingError(
                    f"the gradient of step {step + 1} is not finite even without loss scaling",
                    remedy="set precision to bf16_autocast or float32, or lower lr",
                )
            self.scale, self.good_steps = self.scale / 2, 0
            return False
        self.good_steps += 1
        if self.good_steps >= self.patience:
            self.scale, self.good_steps = self.scale * 2, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
