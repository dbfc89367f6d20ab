"""The stage that measures preferences. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nacre.errors import ConfigError
from nacre.lifecycle.evaluate.stages import MEASURED, EvaluateConfig, check_split
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage


@dataclass(frozen=True)
class PreferenceEvalConfig(EvaluateConfig):
    """`beta` of the implicit reward; None takes what the model was trained with, else 0.1."""

    beta: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta is not None and not 0 < self.beta < float("inf"):
            raise ConfigError(f"beta is {self.beta}", remedy="give a number above 0")


@stage(
    "evaluate.preference",
    produces="report",
    inputs=MEASURED | {"reference": Input("model", "aligned_with", optional=True)},
    check=check_split,
)
def preference(config: PreferenceEvalConfig, work: Work) -> Mapping[str, Scalar]:
    """How often a reward model, or the implicit reward of a policy, ranks held-out pairs rightly, and by what margin.

    The implicit reward is beta times the log-ratio to the `reference`; without one, the log-probability per token.
    """
    from nacre.lifecycle.evaluate.worker_preference import evaluate_preference

    return evaluate_preference(config, work)
