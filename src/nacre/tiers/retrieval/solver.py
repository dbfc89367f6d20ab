"""How rows are answered by looking up, by kind of task: what the stage tries on validation rows and the rung does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nacre.engine.protocol import Engine, Usage
from nacre.errors import CheckpointError
from nacre.tiers.asking.asking import ask
from nacre.tiers.asking.wording import Instruction, default_instruction, demonstration
from nacre.tiers.retrieval.gazetteer import Found, Gazetteer
from nacre.tiers.retrieval.index import Hit, Index, Mode
from nacre.tiers.retrieval.modes import DEPTH, rank_documents
from nacre.tiers.retrieval.vectors import Filters
from nacre.tiers.retrieval.vote import Vote, shares
from nacre.tiers.rung import Answer, Citation
from nacre.tiers.task import Row, Task, join_tokens, text_of

MOST_CITED, MOST_SCORES = 5, 5


@dataclass(frozen=True)
class Neighbours:
    """The nearest training rows of each of some rows, and what finding them used, by place."""

    hits: list[list[Hit]]
    usages: dict[int, Usage]
    served_by: str | None = None


def neighbours(
    index: Index, task: Task, rows: Sequence[Row], k: int, mode: Mode, filters: Filters | None = None
) -> Neighbours:
    """The nearest rows of an index of training rows."""
    texts = [text_of(row, task.kind) for row in rows]
    hits = index.search_many(texts, k, mode, filters)
    if index.resolve(mode) == "lexical" or index.embedder is None:
        return Neighbours(hits, {})
    return Neighbours(hits, index.embedder.usages, index.embedder.model)


def answers_by_vote(found: Neighbours, vote: Vote) -> list[Answer]:
    """The label that most neighbours have; they are the citations. No neighbour, no answer."""
    answers = []
    for place, hits in enumerate(found.hits):
        counted = shares(hits, vote)
        best = dict(list(counted.items())[:MOST_SCORES])
        answers.append(_answer(next(iter(best), None), hits[: vote.k], found, place, best))
    return answers


def answers_by_memory(found: Neighbours) -> list[Answer]:
    """The target of the nearest source."""
    return [
        _answer(str(hits[0].fields["target"]) if hits else None, hits[:1], found, place, {})
        for place, hits in enumerate(found.hits)
    ]


def _answer(value: str | None, hits: Sequence[Hit], found: Neighbours, place: int, scores: dict[str, float]) -> Answer:
    return Answer(
        value,
        problem=None if value is not None else "no_neighbour",
        scores=scores,
        usage=found.usages.get(place, Usage()),
        citations=tuple(map(citation, hits[:MOST_CITED])),
        served_by=found.served_by,
    )


def answers_by_demonstrations(
    engine: Engine, task: Task, rows: Sequence[Row], found: Neighbours, shots: int
) -> list[Answer]:
    """An engine is shown the nearest training rows with their answers, the nearest last, and writes."""
    base = default_instruction(task)
    asked = [_shown(task, base, hits[:shots]) for hits in found.hits]
    written = ask(engine, task, rows, asked)
    return [
        replace(
            answer,
            usage=answer.usage + found.usages.get(place, Usage()),
            citations=tuple(map(citation, hits[: min(shots, MOST_CITED)])),
        )
        for place, (answer, hits) in enumerate(zip(written, found.hits, strict=True))
    ]


def _shown(task: Task, base: Instruction, hits: Sequence[Hit]) -> Instruction:
    return replace(base, demonstrations=tuple(demonstration(task, _row(task, hit)) for hit in reversed(hits)))


def _row(task: Task, hit: Hit) -> Row:
    """A training row as it was, from the index of training rows."""
    text_field = {"classify": "text", "generate": "source", "tag": "", "rank": "query"}[task.kind]
    return {**hit.fields, text_field: hit.text} if text_field else hit.fields


def answers_by_gazetteer(gazetteer: Gazetteer, task: Task, rows: Sequence[Row]) -> list[Answer]:
    """Entities by longest match; each cites the training row that its entry comes from."""
    from nacre.tiers.asking.parsing import write_tags

    answers = []
    for row in rows:
        found = gazetteer.find(row["tokens"])
        tags = write_tags([one.entity for one in found], len(row["tokens"]), task.labels)
        answers.append(Answer(tags, citations=tuple(map(_entry_citation, found))))
    return answers


def _entry_citation(found: Found) -> Citation:
    text = join_tokens(found.entry.words)
    return Citation(found.entry.source, 0, len(text), text, round(found.entry.precision, 4))


def answers_by_ranking(index: Index, task: Task, rows: Sequence[Row], mode: Mode) -> list[Answer]:
    """The documents of the corpus, the best first; the best passages are the citations."""
    found = rank_documents(index, [str(row["query"]) for row in rows], mode, DEPTH)
    embedder = index.embedder if index.resolve(mode) != "lexical" else None
    usages = embedder.usages if embedder else {}
    return [
        Answer(
            [hit.source for hit in hits],
            usage=usages.get(place, Usage()),
            citations=tuple(map(citation, hits[:MOST_CITED])),
            served_by=embedder.model if embedder else None,
        )
        for place, hits in enumerate(found)
    ]


def reranked(
    engine: Engine, task: Task, rows: Sequence[Row], ranked: Sequence[Answer], index: Index, n: int
) -> list[Answer]:
    """The first `n` documents in the order that an engine that writes gives them; where it gives none, as they were."""
    shown = [_passages(index, answer.value[:n]) for answer in ranked]
    able = [place for place, passages in enumerate(shown) if passages]
    written = ask(engine, task, [rows[place] for place in able], candidates=[shown[place] for place in able])
    answers = list(ranked)
    for place, answer in zip(able, written, strict=True):
        before = ranked[place]
        value = before.value if answer.value is None else [*answer.value, *before.value[n:]]
        answers[place] = replace(
            before, value=value, problem=answer.problem, raw=answer.raw, usage=before.usage + answer.usage,
            served_by=answer.served_by,
        )  # fmt: skip
    return answers


def _passages(index: Index, sources: Sequence[str]) -> list[Row]:
    found: list[Row] = []
    for source in sources:
        passages = index.passages.of_document(source)
        if not passages:
            raise CheckpointError(f"{index.folder} has no passage of {source}", remedy="make the rung again")
        found.append({"id": source, "text": passages[0].chunk.text})
    return found


def citation(hit: Hit) -> Citation:
    """A hit as what an answer cites."""
    return Citation(hit.source, hit.start, hit.end, hit.text, round(hit.score, 6))
