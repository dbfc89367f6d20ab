"""The one figure by which a task is judged, as additive rows per example, so that any two solvers can be paired.

A task's rows and a solver's values, by kind of task:

    classify   {"text", "label"}               a label
    tag        {"tokens", "tags"}              a list of tags, one per token
    generate   {"source", "target" | "targets"}  a text; of several targets BLEU, chrF and ROUGE take the first
    rank       {"query", "relevant"}           a list of corpus ids, best first

A value of None is no answer (refused, unparsable): it is wrong, never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nacre.errors import ConfigError, DataError, closest
from nacre.metrics import ranking
from nacre.metrics.bootstrap import Bootstrap, Difference, Interval, interval, paired, wilson
from nacre.metrics.classification import class_rows, macro_f1_of_sums
from nacre.metrics.entities import entity_rows, micro_f1_of_sums

Kind = Literal["classify", "tag", "generate", "rank"]
Floats = NDArray[np.float64]
Row = Mapping[str, Any]

METRICS: Mapping[Kind, tuple[str, ...]] = {
    "classify": ("accuracy", "macro_f1"),
    "tag": ("entity_f1",),
    "generate": ("chrf", "bleu", "rouge_l", "exact"),
    "rank": ("ndcg@10", "mrr@10", "recall@1", "recall@5", "recall@10"),
}


@dataclass(frozen=True)
class Judged:
    """Additive rows (N, S) of one solver's answers, and the function from their sums (R, S) to values (R,) in 0..1."""

    rows: Floats
    of_sums: Callable[[Floats], Floats]
    counts_hits: bool = False  # rows are 0 or 1: an exact interval exists

    @property
    def score(self) -> float:
        """The metric over all rows."""
        return float(self.of_sums(self.rows.sum(axis=0, keepdims=True))[0])

    def interval(self, settings: Bootstrap | None = None) -> Interval:
        """Wilson's for a share of hits, else by resampling rows."""
        if self.counts_hits:
            level = (settings or Bootstrap()).level
            return wilson(int(self.rows[:, 0].sum()), len(self.rows), level)
        return interval(self.rows, self.of_sums, settings)

    def against(self, other: Judged, settings: Bootstrap | None = None) -> Difference:
        """The other's value minus this one's on the same examples, resampled in pairs."""
        width = max(self.rows.shape[1], other.rows.shape[1])
        if width != min(self.rows.shape[1], other.rows.shape[1]):
            raise DataError(
                "the two were judged by different metrics", remedy="judge both with one call of `judge_all`"
            )
        return paired(self.rows, other.rows, self.of_sums, settings)


@dataclass(frozen=True)
class Quality:
    """How a task is judged: its kind, the metric's name, the language of written answers."""

    kind: Kind
    metric: str
    language: str = "en"

    def __post_init__(self) -> None:
        if self.kind not in METRICS:
            raise ConfigError(f"no kind of task {self.kind!r}", remedy=closest(self.kind, METRICS))
        if self.metric not in METRICS[self.kind]:
            raise ConfigError(
                f"a task of the kind {self.kind} is not judged by {self.metric!r}",
                remedy=closest(self.metric, METRICS[self.kind]),
            )

    def judge(self, rows: Sequence[Row], values: Sequence[Any]) -> Judged:
        """One solver's answers to `rows`."""
        return self.judge_all(rows, {"": values})[""]

    def judge_all(self, rows: Sequence[Row], answers: Mapping[str, Sequence[Any]]) -> dict[str, Judged]:
        """Several solvers' answers to the same rows, comparable in pairs. DataError where counts differ."""
        for name, values in answers.items():
            if len(values) != len(rows) or not rows:
                raise DataError(
                    f"{name or 'the solver'} gave {len(values)} answers to {len(rows)} rows",
                    remedy="answer every row once",
                )
        return _JUDGES[self.kind](self, rows, answers)


def _classes(quality: Quality, rows: Sequence[Row], answers: Mapping[str, Sequence[Any]]) -> dict[str, Judged]:
    if quality.metric == "accuracy":
        return {
            name: _hits([value == row["label"] for row, value in zip(rows, values, strict=True)])
            for name, values in answers.items()
        }
    names = sorted({row["label"] for row in rows} | {v for values in answers.values() for v in values if v is not None})
    number: dict[str | None, int] = {None: len(names)} | {name: index for index, name in enumerate(names)}
    true = [number[row["label"]] for row in rows]
    # No answer is a miss of the true class, and no class of its own that the mean would run over.
    known = [column for column in range(3 * (len(names) + 1)) if column % (len(names) + 1) != len(names)]
    return {
        name: Judged(class_rows(true, [number[one] for one in values], len(names) + 1)[:, known], macro_f1_of_sums)
        for name, values in answers.items()
    }


def _tags(quality: Quality, rows: Sequence[Row], answers: Mapping[str, Sequence[Any]]) -> dict[str, Judged]:
    true = [list(row["tags"]) for row in rows]
    blank = [["O"] * len(tags) for tags in true]
    judged = {}
    for name, values in answers.items():
        guesses = [empty if value is None else list(value) for empty, value in zip(blank, values, strict=True)]
        counts = entity_rows(true, guesses)
        # Hits, predicted and true summed over kinds: micro F1 needs no more, and every solver has the same columns.
        parts = np.stack([part.sum(axis=1) for part in np.split(counts.rows, 3, axis=1)], axis=1)
        judged[name] = Judged(parts, micro_f1_of_sums)
    return judged


def _texts(quality: Quality, rows: Sequence[Row], answers: Mapping[str, Sequence[Any]]) -> dict[str, Judged]:
    references = [list(row["targets"]) if row.get("targets") else [str(row["target"])] for row in rows]
    written = {name: ["" if value is None else str(value) for value in values] for name, values in answers.items()}
    if quality.metric == "exact":
        return {
            name: _hits(
                [text.strip() in {one.strip() for one in ones} for text, ones in zip(texts, references, strict=True)]
            )
            for name, texts in written.items()
        }
    from nacre.metrics import overlap  # needs sacrebleu and rouge-score

    firsts = [ones[0] for ones in references]
    judged = {}
    for name, texts in written.items():
        if quality.metric == "rouge_l":
            judged[name] = _means(overlap.rouge(texts, firsts, quality.language)["rougeL"])
            continue
        found = (overlap.chrf if quality.metric == "chrf" else overlap.bleu)(texts, firsts, quality.language)
        judged[name] = Judged(found.rows, _as_share(found.of_sums))
    return judged


def _ranks(quality: Quality, rows: Sequence[Row], answers: Mapping[str, Sequence[Any]]) -> dict[str, Judged]:
    measure, _, k = quality.metric.partition("@")

    def one(ranked: Sequence[str] | None, relevant: Sequence[str]) -> float:
        if measure == "recall":
            return ranking.recall_at(int(k), ranked or [], relevant)
        if measure == "mrr":
            return ranking.reciprocal_rank(ranked or [], relevant, int(k))
        return ranking.ndcg_at(int(k), ranked or [], relevant)

    return {
        name: _means(np.array([one(value, row["relevant"]) for row, value in zip(rows, values, strict=True)]))
        for name, values in answers.items()
    }


def _hits(right: Sequence[bool]) -> Judged:
    judged = _means(np.array(right, dtype=np.float64))
    return Judged(judged.rows, judged.of_sums, counts_hits=True)


def _means(values: Floats) -> Judged:
    return Judged(np.stack([values, np.ones(len(values))], axis=1), _ratio_of_sums)


def _as_share(percent: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    return lambda sums: percent(sums) / 100


def _ratio_of_sums(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


_Judge = Callable[[Quality, Sequence[Row], Mapping[str, Sequence[Any]]], dict[str, Judged]]
_JUDGES: Mapping[Kind, _Judge] = {"classify": _classes, "tag": _tags, "generate": _texts, "rank": _ranks}
