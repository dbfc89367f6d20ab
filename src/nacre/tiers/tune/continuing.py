"""`tune.continual`: one task of a sequence of tasks. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Literal

from nacre.errors import ConfigError, DataError
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig, chosen
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.tiers.tune.stages import TUNED
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import ClassifyConfig

ORDINALS = ("first", "second", "third", "fourth", "fifth")
EARLIER = tuple(f"{name}_data" for name in ORDINALS)
ANCHORS = tuple(f"{name}_anchor" for name in ORDINALS)
ANCHOR_FILE = "anchor.safetensors"


@dataclass(frozen=True)
class ContinualConfig:
    """One head over the union of the labels met so far. `compete`: `all` trains a class against every class met so
    far; `task` against those of its own task alone, which is a head per task: such a model is to be told the task.

    `replay`: share of the training rows of each earlier task's data that are trained again, drawn by the seed. `ewc`:
    strength by which weights are held where earlier stages left them, by their importance there (Kirkpatrick et al.
    2017); `anchor_rows`: training rows over which this stage's own importance is taken, 0 for no anchor. `adapter`:
    what the task learns beside a frozen body; give every stage the same model then. `shared_labels`: a label that an
    earlier task has as well is the same class; without it such a label is refused.
    """

    objective: ClassifyConfig = field(default_factory=ClassifyConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=3))
    pooling: Literal["mean", "cls", "last"] = "mean"
    limit: int | None = None
    compete: Literal["all", "task"] = "all"
    replay: float = 0.0
    ewc: float = 0.0
    anchor_rows: int = 200
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    shared_labels: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.replay <= 1:
            raise ConfigError(f"replay is {self.replay}", remedy="give a share of the earlier rows, 0 to 1")
        if not 0 <= self.ewc < inf:
            raise ConfigError(f"ewc is {self.ewc}", remedy="give a strength of 0 or more")
        if self.anchor_rows < 0:
            raise ConfigError(f"anchor_rows is {self.anchor_rows}", remedy="give 0 or more rows; 200 will do")
        if self.compete == "task" and self.objective.loss.label_smoothing:
            raise ConfigError("label smoothing would reach classes of other tasks", remedy="label_smoothing: 0")
        if chosen(self.lora, self.adapter) is not None and self.ewc:
            raise ConfigError("an adapter leaves the body frozen: there is nothing to hold", remedy="ewc: 0")


def check_continual(config: ContinualConfig, inputs: Mapping[str, Path]) -> None:
    """A remedy without its inputs would be none, and an input without its remedy a mistake."""
    replayed, anchored = any(name in inputs for name in EARLIER), any(name in inputs for name in ANCHORS)
    if replayed and not config.replay:
        raise ConfigError("earlier data is given and replay is 0", remedy="replay: 0.1, or leave the data out")
    if anchored and not config.ewc:
        raise ConfigError("anchors are given and ewc is 0", remedy="ewc: 100, or leave the anchors out")
    if config.replay and not replayed:
        raise ConfigError("replay is set and no earlier data is given", remedy=f"name it under inputs: {EARLIER[0]}")
    if config.ewc and not anchored:
        raise ConfigError("ewc is set and no anchor is given", remedy=f"name an earlier stage as {ANCHORS[0]}")
    for name in ANCHORS:
        if name in inputs and not (inputs[name] / ANCHOR_FILE).is_file():
            raise DataError(
                f"{inputs[name]} holds no {ANCHOR_FILE}", remedy="give the product of tune.continual with anchor_rows"
            )


@stage(
    "tune.continual",
    produces="model",
    inputs=TUNED
    | {name: Input("dataset", "trained_on", optional=True) for name in EARLIER}
    | {name: Input("model", "aligned_with", optional=True) for name in ANCHORS},
    check=check_continual,
)
def continual(config: ContinualConfig, work: Work) -> Mapping[str, Scalar]:
    """A classifier that learns one more task after others, with replay, with anchors (EWC), or with an adapter."""
    from nacre.tiers.tune.continuing_worker import continue_classifier

    return continue_classifier(config, work)
