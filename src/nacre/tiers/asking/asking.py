"""Asking an engine: in words (`ask`), or by the log-probabilities of labels (`score_labels`). Vectors: `vectors.py`.

Answers come in the order of the rows. What an answer used is in its `usage`; BudgetReached passes through, and what was
answered before it is in the engine's cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nacre.engine.protocol import Engine, EngineError, Generation, Prompt, Sampling, Score, Unsupported, Usage
from nacre.engine.protocol import unsupported as cannot
from nacre.errors import DataError
from nacre.tiers.asking.parsing import parse
from nacre.tiers.asking.wording import Instruction, as_text, default_instruction, is_chinese, messages
from nacre.tiers.rung import Answer
from nacre.tiers.task import Row, Task

T = TypeVar("T")
Floats = NDArray[np.float64]

MOST_SCORES = 5
_LONG_ANSWER = 512  # tokens: a list of entities, a written text, a ranking
_NOTHING = ("", "N/A", "[MASK]")  # inputs without content (Zhao et al. 2021, section 5)


@dataclass(frozen=True)
class Question:
    """A row, how it is asked, and the passages that a `rank` task ranks."""

    row: Row
    prompt: Prompt
    candidates: Sequence[Row] | None = None


def ask(
    engine: Engine,
    task: Task,
    rows: Sequence[Row],
    instruction: Instruction | Sequence[Instruction] | None = None,
    *,
    candidates: Sequence[Sequence[Row]] | None = None,
    how: Sampling | None = None,
    batch: int = 64,
) -> list[Answer]:
    """Answers in words, strictly parsed. An engine that cannot chat is given the same messages as one text to continue.

    `instruction` and `candidates` are for all rows or one per row. A row whose request is refused as such (too long,
    filtered before it was read) is no answer with the problem `rejected`; where nothing else was answered, the error is
    raised, for then it is not the row's fault.
    """
    questions = _questions(engine, task, rows, instruction, candidates)
    sampling = how or default_sampling(engine, task)
    answers: list[Answer] = []
    for part in batches(questions, batch):
        written = _written(engine, part, sampling, answered=any(one.problem != "rejected" for one in answers))
        answers += [_answer(task, one, got) for one, got in zip(part, written, strict=True)]
    return answers


def prompt_of(
    engine: Engine, task: Task, row: Row, instruction: Instruction, candidates: Sequence[Row] | None = None
) -> Prompt:
    """How this engine is asked: by messages where it chats, else by one text to continue."""
    turns = messages(task, row, instruction, candidates=candidates)
    if engine.capabilities.chat:
        return turns
    return as_text(task, turns)


def default_sampling(engine: Engine, task: Task, max_tokens: int | None = None) -> Sampling:
    """Greedy, with `max_tokens`, or else room for the longest answer of the kind, but at most half of the context.

    An engine that only completes goes on after its answer: a line ends it, or, in a written text, an empty line.
    It depends on the task alone, never on the rows at hand, so that the cache knows a row asked again.
    """
    room = max_tokens or (32 + max(map(len, task.labels), default=0) if task.kind == "classify" else _LONG_ANSWER)
    if engine.capabilities.context is not None:
        room = max(1, min(room, engine.capabilities.context // 2))
    stop = () if engine.capabilities.chat else ("\n\n",) if task.kind == "generate" else ("\n",)
    return Sampling(max_tokens=room, stop=stop)


def score_labels(
    engine: Engine,
    task: Task,
    rows: Sequence[Row],
    instruction: Instruction | None = None,
    *,
    per_token: bool = True,
    calibrate: bool = False,
    batch: int = 64,
) -> list[Answer]:
    """The label that is likeliest to follow the question, by log-probabilities; `batch` counts questions times labels.

    `per_token` divides by the number of tokens, without which long labels lose. `calibrate` divides by how likely a
    label is after inputs without content (Zhao et al. 2021, "Calibrate Before Use", section 5).
    """
    if not engine.capabilities.score:
        raise cannot(engine, "score")
    if task.kind != "classify":
        raise Unsupported(
            f"a task of the kind {task.kind} has no labels to score", remedy="give an engine that can chat or complete"
        )
    asked_by = instruction or default_instruction(task)
    prior: Floats | float = 0.0
    if calibrate:
        nothing = [{"text": text} for text in _NOTHING]
        values = [_values(one, per_token) for one in _scored(engine, task, nothing, asked_by, batch)]
        prior = np.logaddexp.reduce(np.stack(values), axis=0) - np.log(len(_NOTHING))
    return [
        _likeliest(task.labels, _values(one, per_token) - prior, one)
        for one in _scored(engine, task, rows, asked_by, batch)
    ]


def likeliest(names: Sequence[str], logits: Floats, most: int = MOST_SCORES) -> dict[str, float]:
    """The `most` likeliest names and their softmax probability, the likeliest first; ties in the order of the names."""
    powers = np.exp(logits - logits.max())
    shares = powers / powers.sum()
    order = np.argsort(-shares, kind="stable")[:most]
    return {names[index]: float(shares[index]) for index in order}


def total_usage(usages: Iterable[Usage]) -> Usage:
    """The sum, unknown where one is unknown."""
    return sum(usages, Usage())


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, `size` at a time."""
    for start in range(0, len(items), max(size, 1)):
        yield items[start : start + max(size, 1)]


def _questions(
    engine: Engine,
    task: Task,
    rows: Sequence[Row],
    instruction: Instruction | Sequence[Instruction] | None,
    candidates: Sequence[Sequence[Row]] | None,
) -> list[Question]:
    if not (engine.capabilities.chat or engine.capabilities.complete):
        raise cannot(engine, "chat")
    if task.kind == "rank" and candidates is None:
        raise DataError("a model in words can only rank passages that it is shown", remedy="give candidates per row")
    one_for_all = instruction or default_instruction(task)
    instructions = [one_for_all] * len(rows) if isinstance(one_for_all, Instruction) else list(one_for_all)
    passages: Sequence[Sequence[Row] | None] = [None] * len(rows) if candidates is None else candidates
    return [
        Question(row, prompt_of(engine, task, row, how, shown), shown)
        for row, how, shown in zip(rows, instructions, passages, strict=True)
    ]


def _written(
    engine: Engine, questions: Sequence[Question], how: Sampling, *, answered: bool
) -> list[Generation | EngineError]:
    """What the engine wrote to each question; the error where the upstream blames that one request."""
    try:
        return list(engine.generate([one.prompt for one in questions], how))
    except EngineError as error:
        if not error.blames_the_request or (len(questions) == 1 and not answered):
            raise
    found: list[Generation | EngineError] = []
    for one in questions:
        try:
            found += engine.generate([one.prompt], how)
        except EngineError as error:
            if not error.blames_the_request:
                raise
            found.append(error)
    errors = [one for one in found if isinstance(one, EngineError)]
    if len(errors) == len(found) and not answered:
        raise errors[0]
    return found


def _answer(task: Task, question: Question, written: Generation | EngineError) -> Answer:
    if isinstance(written, EngineError):
        return Answer(None, "rejected", raw=written.message)
    parsed = parse(task, question.row, written, candidates=question.candidates)
    return Answer(parsed.value, parsed.problem, usage=written.usage, raw=written.text, served_by=written.model)


def _scored(
    engine: Engine, task: Task, rows: Sequence[Row], instruction: Instruction, batch: int
) -> Iterator[list[Score]]:
    """Per row, the score of each label in the order of the task's labels."""
    # Over HTTP only plain texts can be scored. They end with "Answer:", so that a label begins with a blank, which
    # Chinese does not write.
    continuations = task.labels if is_chinese(task.language) else [f" {label}" for label in task.labels]
    for part in batches(rows, batch // len(task.labels)):
        prompts = [as_text(task, messages(task, row, instruction)) for row in part]
        pairs = [(prompt, continuation) for prompt in prompts for continuation in continuations]
        yield from (list(one) for one in batches(engine.score(pairs), len(task.labels)))


def _values(scores: Sequence[Score], per_token: bool) -> Floats:
    return np.array([one.log_probability / (max(one.tokens, 1) if per_token else 1) for one in scores])


def _likeliest(labels: Sequence[str], values: Floats, scores: Sequence[Score]) -> Answer:
    shares = likeliest(labels, values)
    return Answer(
        next(iter(shares)),
        scores=shares,
        usage=total_usage(one.usage for one in scores),
        served_by=", ".join(dict.fromkeys(one.model for one in scores)),
    )


def count_problems(answers: Iterable[Answer]) -> Mapping[str, int]:
    """How many answers have each problem; problems that none has are left out."""
    counts: dict[str, int] = {}
    for one in answers:
        if one.problem is not None:
            counts[one.problem] = counts.get(one.problem, 0) + 1
    return counts
