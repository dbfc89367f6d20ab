"""Passages in a new order by an engine that has read them: what `Index.search(rerank=...)` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nacre.data.rows import is_han
from nacre.engine.protocol import Engine, unsupported
from nacre.tiers.asking.asking import ask
from nacre.tiers.retrieval.index import Reranker
from nacre.tiers.retrieval.passages import Passage
from nacre.tiers.task import Task

_TEMPLATES = {"en": ("Passage: {0}\nA question that it answers:", " {0}"), "zh": ("段落：{0}\n它回答的问题：", "{0}")}


def by_likelihood(engine: Engine, n: int = 20) -> Reranker:
    """Orders the first `n` passages by the likelihood of the query after each, per token (Sachan et al. 2022)."""
    if not engine.capabilities.score:
        raise unsupported(engine, "score")

    def rerank(query: str, passages: Sequence[Passage]) -> list[float]:
        before, after = _TEMPLATES["zh" if any(map(is_han, query)) else "en"]
        pairs = [(before.format(one.chunk.text), after.format(query)) for one in passages[:n]]
        scores = [one.log_probability / max(one.tokens, 1) for one in engine.score(pairs)]
        return _behind(scores, len(passages))

    return rerank


def by_reading(engine: Engine, n: int = 20) -> Reranker:
    """Orders the first `n` passages as an engine that writes ranks them; as they were where it gives no ranking."""

    def rerank(query: str, passages: Sequence[Passage]) -> list[float]:
        language = "zh" if any(map(is_han, query)) else "en"
        task = Task("search", "rank", "", "ndcg@10", language, Path())
        shown = [{"id": str(one.key), "text": one.chunk.text} for one in passages[:n]]
        answer = ask(engine, task, [{"query": query}], candidates=[shown])[0]
        ids = answer.value if answer.value is not None else [one["id"] for one in shown]
        places = {one: place for place, one in enumerate(ids)}
        return _behind([-float(places[one["id"]]) for one in shown], len(passages))

    return rerank


def _behind(scores: list[float], n: int) -> list[float]:
    """The scores, and for the passages that were not looked at lower ones in their order."""
    lowest = min(scores, default=0.0)
    return scores + [lowest - 1 - place for place in range(n - len(scores))]
