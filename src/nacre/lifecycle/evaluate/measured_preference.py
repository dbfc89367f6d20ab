"""From rewards of pairs of answers to figures and report, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.data.chat.formats import Pair
from nacre.errors import DataError
from nacre.lifecycle.evaluate.content import Figure, Report, Sample
from nacre.lifecycle.evaluate.markup import number, percent
from nacre.lifecycle.evaluate.measured import Measured, Setting, measurement, said
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics.bootstrap import mean_interval, wilson

SHOWN = 24  # pairs in the report


@dataclass(frozen=True)
class Ranked:
    """The pairs that were read, their rewards (N, 2), chosen first, and whose rewards these are: `reward_model`,
    `implicit_reward` or `per_token_reward`."""

    pairs: Sequence[Pair]
    rewards: NDArray[np.float64]
    source: str


def preferences(ranked: Ranked, setting: Setting) -> Measured:
    """Accuracy and margin with their intervals. Equal rewards rank nothing: they count as wrong, and are told."""
    say, rewards = Words(setting.language), ranked.rewards
    if not len(rewards):
        raise DataError("no test row is a preference pair that can be read", remedy="see what was dropped, above")
    margins = rewards[:, 0] - rewards[:, 1]
    right = mean_interval((margins > 0).astype(np.float64), setting.bootstrap)
    margin, ties = mean_interval(margins, setting.bootstrap), int((margins == 0).sum())
    longer = float(np.mean([len(pair.chosen) > len(pair.rejected) for pair in ranked.pairs]))
    figures: dict[str, Any] = {
        "pairs": len(rewards),
        "reward": ranked.source,
        "accuracy": right.as_dict(),
        "accuracy_wilson": wilson(int((margins > 0).sum()), len(rewards), setting.bootstrap.level).as_dict(),
        "margin": margin.as_dict(),
        "reward_chosen": float(rewards[:, 0].mean()),
        "reward_rejected": float(rewards[:, 1].mean()),
        "ties": ties,
        "longer_chosen": longer,
    }
    verdict = say("verdict_preference", value=percent(right.value), n=f"{len(rewards):,}", interval=said(say, right))
    if right.low <= 0.5 <= right.high:
        verdict += " " + say("verdict_chance")
    report = Report(
        title=setting.title,
        verdict=verdict,
        language=setting.language,
        figures=[
            Figure("pairs_right", right),
            Figure("margin", margin, "number"),
            Figure("reward_chosen", figures["reward_chosen"], "number"),
            Figure("reward_rejected", figures["reward_rejected"], "number"),
            Figure("longer_chosen", longer),
        ],
        notes=[
            *setting.notes,
            say(f"note_{ranked.source}"),
            *([say("note_ties", n=f"{ties:,}")] if ties else []),
        ],
        samples=_worst(ranked, margins, say),
        settings=measurement(setting, len(rewards)),
    )
    return Measured(figures, report)


def _worst(ranked: Ranked, margins: NDArray[np.float64], say: Words) -> list[Sample]:
    """The pairs that are ranked most wrongly: the rejected answer, its prompt, and the chosen one beside it."""
    rows = [int(row) for row in np.argsort(margins, kind="stable")[:SHOWN] if margins[row] <= 0]
    return [
        Sample(
            ranked.pairs[row].rejected,
            source=str(ranked.pairs[row].messages[-1]["content"]),
            reference=ranked.pairs[row].chosen,
            remarks=[f"{say.name('margin')}: {number(float(margins[row]), 'number')}"],
        )
        for row in rows
    ]
