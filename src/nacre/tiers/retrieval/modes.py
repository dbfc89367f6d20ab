"""Words, meaning, or both: chosen on validation queries, for fusion with a weak ranking makes a strong one worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nacre.metrics.quality import Quality, Row
from nacre.progress import Scalar
from nacre.tiers.retrieval.index import Hit, Index, Mode

DEPTH = 100  # documents that a ranking names
_PASSAGES = 3  # passages looked at per document that is wanted


@dataclass(frozen=True)
class Chosen:
    """The mode, why, and the figure of every candidate on the validation queries."""

    mode: Mode
    why: str
    scores: Mapping[str, float]

    def metrics(self) -> dict[str, Scalar]:
        return {"mode": self.mode, **{f"valid_{name}": round(score, 4) for name, score in self.scores.items()}}


def documents(hits: Sequence[Hit], k: int = DEPTH) -> list[str]:
    """The documents of the passages, each once, at the place of its best passage."""
    return list(dict.fromkeys(hit.source for hit in hits))[:k]


def rank_documents(index: Index, queries: Sequence[str], mode: Mode, k: int = DEPTH) -> list[list[Hit]]:
    """The best passage of each of the best `k` documents, per query."""
    found = index.search_many(queries, min(k * _PASSAGES, max(index.manifest.chunks, 1)), mode)
    best = []
    for hits in found:
        first: dict[str, Hit] = {}
        for hit in hits:
            first.setdefault(hit.source, hit)
        best.append(list(first.values())[:k])
    return best


def choose_mode(index: Index, rows: Sequence[Row], quality: Quality) -> Chosen:
    """The mode that ranks best for `rows` (`query`, `relevant`).

    Hybrid is taken only where its paired difference to the better of the two has an interval above zero.
    """
    if index.manifest.engine is None:
        return Chosen("lexical", "no embedding engine was given", _judged(index, rows, quality, ("lexical",)))
    if not rows:
        return Chosen("dense", "no validation queries were given", {})
    answers = {mode: _ranked(index, rows, mode) for mode in ("lexical", "dense", "hybrid")}
    judged = quality.judge_all(rows, answers)
    scores = {mode: one.score for mode, one in judged.items()}
    single: Mode = "dense" if scores["dense"] > scores["lexical"] else "lexical"
    gain = judged[single].against(judged["hybrid"])
    said = f"{quality.metric} of hybrid minus {single}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    said += f" on {len(rows)} validation queries"
    return Chosen("hybrid" if gain.low > 0 else single, said, scores)


def _judged(index: Index, rows: Sequence[Row], quality: Quality, modes: Sequence[Mode]) -> dict[str, float]:
    if not rows:
        return {}
    answers: dict[str, Sequence[Any]] = {mode: _ranked(index, rows, mode) for mode in modes}
    return {mode: one.score for mode, one in quality.judge_all(rows, answers).items()}


def _ranked(index: Index, rows: Sequence[Row], mode: Mode) -> list[list[str]]:
    found = rank_documents(index, [str(row["query"]) for row in rows], mode)
    return [documents(hits) for hits in found]
