"""`data.augment`: further versions of training rows, or noise on held-out ones. Light: the work is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nacre.data.augment.neighbours import NeighbourConfig
from nacre.data.augment.vary import Rates
from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage


@dataclass(frozen=True)
class BackTranslation:
    """Versions by way of another language and back, written by the step's engine. `via`: its English name, as it
    stands in the prompt. Versions shorter than half or longer than twice their text are not taken."""

    via: str = "English"
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if not self.via.strip() or self.max_tokens < 1:
            raise ConfigError("back_translation names no language or no length", remedy="via: French, max_tokens: 256")


@dataclass(frozen=True)
class AugmentConfig:
    """`rates` of the changes; `copies`: versions of each row; `keep`: whether the row itself stays as well.

    `splits`: which are changed; the others are passed on as they are. Noise on `test` measures a model's robustness;
    noise on `train` is to teach it. `varied`: the field that is changed in rows that are no tagged tokens. `synonyms`
    are the neighbours of words in an embedding of the training rows, needed where `rates.synonyms` is above 0.
    """

    rates: Rates | None = None
    back_translation: BackTranslation | None = None
    copies: int = 1
    keep: bool = True
    splits: tuple[Literal["train", "valid", "test"], ...] = ("train",)
    varied: str = "text"
    synonyms: NeighbourConfig = field(default_factory=NeighbourConfig)

    def __post_init__(self) -> None:
        if self.rates is None and self.back_translation is None:
            raise ConfigError("nothing is changed", remedy="give `rates`, such as {delete: 0.1}, or `back_translation`")
        if not 1 <= self.copies <= 64:
            raise ConfigError(f"copies is {self.copies}", remedy="give 1 to 64")
        if not self.splits:
            raise ConfigError("no split is named", remedy="splits: [train], or [test] to measure with noise")


@stage(
    "data.augment",
    produces="dataset",
    inputs={"data": Input("dataset", "made_from"), "engine": Input("any", "calls", optional=True)},
)
def augment(config: AugmentConfig, work: Work) -> Mapping[str, Scalar]:
    """A dataset with further versions of its rows, and what was done to them in `report.json`."""
    from nacre.lifecycle.prepare.augmenting import augmented

    return augmented(config, work)
