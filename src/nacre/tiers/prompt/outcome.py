"""What a search found, and how: the winner, and a log of every candidate with its score, interval and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.data.write import write_json
from nacre.metrics.quality import Judged
from nacre.tiers.prompt.file import PromptFile

CHOICES_FILE, PROMPT_FILE = "choices.json", "prompt.md"


@dataclass(frozen=True)
class Outcome:
    """The winning prompt; `examples`: training rows that stand for labels beside it (`similarity`).

    `score` is that of the rows by which it was chosen, so it flatters: what the prompt is worth, the test rows say.
    `default` is the score of the prompt that was not optimised, on as many of the same rows as it was judged on.
    """

    prompt: PromptFile
    winner: str
    score: float
    default: float | None
    n_demonstrations: int
    log: Mapping[str, Any]
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes `prompt.md` and `choices.json`."""
        self.prompt.save(folder / PROMPT_FILE)
        write_json(folder / CHOICES_FILE, self.log)


def figures(judged: Judged) -> dict[str, Any]:
    """Score and interval of a candidate, for the log; None where the metric has no value."""
    found = judged.interval()
    values = {"score": judged.score, "low": found.low, "high": found.high}
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}


def order(score: float, length: int) -> tuple[float, int]:
    """What candidates are sorted by: the best score first, of equals the shorter; no value at all comes last."""
    return (-score if math.isfinite(score) else math.inf, length)
