"""What stage 4 can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nacre.lifecycle.audit.data.overlap import OverlapConfig


@dataclass(frozen=True)
class DataSettings:
    """`fields`: what of a row is compared, all texts where empty; a name, or a path such as `answers.text`.
    `canaries`: a file of texts some of which were planted in the data set. `shuffled`: the user answers for it that the
    data set's rows were put in their order at random. `alpha`: the largest chance of error of a claim that a model was
    trained on rows; `seed`: of what is drawn for it; `max_flops`: what each of its tests may cost."""

    fields: tuple[str, ...] = ()
    canaries: Path | None = None
    overlap: OverlapConfig = field(default_factory=OverlapConfig)
    alpha: float = 0.01
    seed: int = 0
    max_flops: float = 2e13
    shuffled: bool = False
