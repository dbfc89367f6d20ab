"""Between two tiers: which test rows the thicker one mends, which it spoils, and how often both say the same.

Right and wrong where answers are: labels, exact texts. Elsewhere by the row's own figure: errors in entities for tags,
else the metric of the row alone, with CLEARLY as the least difference that counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.ladder.compare import Answers
from nacre.ladder.result import Between, Example, Row
from nacre.ladder.words import Words
from nacre.metrics.entities import read_entities
from nacre.metrics.quality import Quality
from nacre.metrics.quality import Row as TestRow
from nacre.tiers.task import join_tokens, text_of

Floats = NDArray[np.float64]
CLEARLY = 0.1
MOST_EXAMPLES = 6
MOST_TEXT = 600  # characters of a text that an example shows; cut ones end in an ellipsis
_MOST_IDS = 5
_Run = tuple[str, Sequence[Any], Floats]  # a tier, its values, how good each is by itself


def between(
    rows: Sequence[Row],
    quality: Quality,
    tests: Sequence[TestRow],
    answers: Mapping[str, Answers],
    language: str = "en",
) -> tuple[Between, ...]:
    """Every pair of measured tiers, thinner first, on the rows both answered; of several seeds the first counts.

    `answers` is that of `compare`. MOST_EXAMPLES are kept of each pair in each direction, those with the largest
    difference first.
    """
    runs: list[_Run] = []
    for row in sorted((row for row in rows if row.ok and answers.get(row.name)), key=lambda row: row.tier):
        values = answers[row.name][0]
        runs.append((row.name, values, _gains(quality, tests[: len(values)], values)))
    words = Words(language)
    return tuple(_pair(quality, tests, thin, thick, words) for thin, thick in combinations(runs, 2))


def _gains(quality: Quality, tests: Sequence[TestRow], values: Sequence[Any]) -> Floats:
    """How good each answer is by itself (N,); larger is better."""
    if quality.kind == "classify":
        return np.array([float(value == row["label"]) for row, value in zip(tests, values, strict=True)])
    judged = quality.judge(tests, values)
    if quality.kind == "tag":
        hits, predicted, true = judged.rows.T
        return np.asarray(2 * hits - predicted - true)  # minus the number of errors
    return judged.rows[:, 0].copy() if judged.counts_hits else judged.of_sums(judged.rows)


def _pair(quality: Quality, tests: Sequence[TestRow], thin: _Run, thick: _Run, words: Words) -> Between:
    n = min(len(thin[1]), len(thick[1]))
    change = thick[2][:n] - thin[2][:n]
    fixed, broken = (np.flatnonzero(sign * change >= CLEARLY - 1e-12) for sign in (1, -1))

    def examples(found: NDArray[np.int64]) -> tuple[Example, ...]:
        first = sorted(found.tolist(), key=lambda index: (-abs(change[index]), index))[:MOST_EXAMPLES]
        return tuple(_example(quality, tests[i], i, thin[1][i], thick[1][i], words) for i in first)

    same = sum(_plain(one) == _plain(other) for one, other in zip(thin[1][:n], thick[1][:n], strict=True)) / n
    return Between(thin[0], thick[0], n, len(fixed), len(broken), same, examples(fixed), examples(broken))


def _example(quality: Quality, row: TestRow, index: int, thin: Any, thick: Any, words: Words) -> Example:
    return Example(
        index,
        _cut(text_of(row, quality.kind)),
        _cut(_shown(quality, row, _truth(quality, row), words)),
        _cut(_shown(quality, row, thin, words)),
        _cut(_shown(quality, row, thick, words)),
    )


def _truth(quality: Quality, row: TestRow) -> Any:
    if quality.kind == "generate":
        return row["targets"][0] if row.get("targets") else row["target"]
    return row[{"classify": "label", "tag": "tags", "rank": "relevant"}[quality.kind]]


def _shown(quality: Quality, row: TestRow, value: Any, words: Words) -> str:
    if value is None:
        return words("no_answer")
    if quality.kind == "tag":
        tokens = row["tokens"]
        found = [f"{join_tokens(tokens[one.start : one.end])} {one.kind}" for one in read_entities(list(value))]
        return " · ".join(found) or words("no_entity")
    if quality.kind == "rank":
        more = f" +{len(value) - _MOST_IDS}" if len(value) > _MOST_IDS else ""
        return " · ".join(str(one) for one in value[:_MOST_IDS]) + more
    return str(value)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MOST_TEXT else flat[: MOST_TEXT - 1] + "…"
