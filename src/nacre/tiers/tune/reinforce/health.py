"""Whether a run still learns from what it draws, or has gone astray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nacre.errors import TrainingError


@dataclass
class Health:
    """Counts iterations in a row without a difference between rewards, and with every answer cut."""

    patience: int
    max_kl: float  # nats per token
    same: int = 0
    cut: int = 0
    varied: bool = False

    def see(self, iteration: int, rewards: npt.NDArray[np.float64], cut: npt.NDArray[np.bool_], kl: float) -> bool:
        """Whether to stop here with what was learnt: rewards did vary, and have ceased to. `rewards` (P, G): those of
        a row are compared with each other; `iteration` counts from 1. TrainingError when nothing was learnt, or what
        was learnt is lost."""
        if not (np.isfinite(kl) and kl <= self.max_kl):
            raise TrainingError(
                f"iteration {iteration}: the answers drawn are {kl:.3g} nats per token likelier than under the "
                f"reference (kl.max_per_token is {self.max_kl:g}): the run diverges",
                remedy="lower update.lr or update.epochs, or raise kl.coefficient",
            )
        self.cut = self.cut + 1 if bool(cut.all()) else 0
        if self.cut >= self.patience:
            raise TrainingError(
                f"iteration {iteration}: every answer of {self.cut} iterations was cut at max_new_tokens: none ends by "
                "itself",
                remedy="raise rollouts.max_new_tokens, or teach the model to end its answers first (tune.sft)",
            )
        differs = bool((rewards.max(axis=1) > rewards.min(axis=1)).any())
        self.varied |= differs
        self.same = 0 if differs else self.same + 1
        if self.same < self.patience:
            return False
        if self.varied:
            return True
        raise TrainingError(
            f"iteration {iteration}: in {self.same} iterations no answer earned more or less than those it is "
            f"compared with (the last ones {rewards.flat[0]:g}): nothing is learnt",
            remedy="reward what the model sometimes does (an easier part, a format), draw more samples, or begin from "
            "a model that sometimes succeeds",
        )

    def state_dict(self) -> list[int]:
        return [self.same, self.cut, int(self.varied)]

    def load_state_dict(self, state: list[int]) -> None:
        self.same, self.cut, self.varied = state[0], state[1], bool(state[2])
