"""Which evaluation was the best, and whether waiting longer is of use."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Best:
    """The best value so far and how many evaluations have passed without a better one. NaN is never better."""

    mode: str = "min"
    min_delta: float = 0.0
    value: float | None = None
    step: int | None = None
    waited: int = 0

    def observe(self, step: int, value: float) -> bool:
        """Whether `value` is better than every one before by more than `min_delta`."""
        better = not math.isnan(value) and (
            self.value is None or (self.value - value if self.mode == "min" else value - self.value) > self.min_delta
        )
        if better:
            self.value, self.step, self.waited = value, step, 0
        else:
            self.waited += 1
        return better

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.step, self.waited = state["value"], state["step"], state["waited"]
