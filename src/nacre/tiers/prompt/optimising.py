"""The search for a prompt in words: instructions times demonstrations, judged on validation rows, halved by rounds.

Successive halving (Jamieson & Talwalkar 2016, section 3): all candidates answer a few rows, the better half goes on to
more of them. The rows of a round begin with those of the round before, so nothing is asked twice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.engine.protocol import Engine, EngineError, Sampling
from nacre.errors import DataError
from nacre.metrics.quality import Judged
from nacre.progress import Progress
from nacre.tiers.asking.asking import ask, count_problems, default_sampling
from nacre.tiers.prompt import candidates as made
from nacre.tiers.prompt.allowance import Allowance, AllowanceUsed
from nacre.tiers.prompt.candidates import Candidate
from nacre.tiers.prompt.instruction import to_prompt
from nacre.tiers.prompt.outcome import Outcome, figures, order
from nacre.tiers.prompt.proposing import Proposed, propose
from nacre.tiers.prompt.stages import PromptConfig
from nacre.tiers.rung import Answer
from nacre.tiers.task import Row, Task

_FEWEST_REFLECTED = 4  # misjudged rows are looked for among at least so many, or not at all
_REFLECTING_SHARE = 4  # at most a quarter of the budget goes into proposals


@dataclass
class Track:
    """How a candidate fares: its answers to the first validation rows, and the round after which it left.

    `refused` is what the engine said where it took none of its prompts: too long, as a rule.
    """

    candidate: Candidate
    answers: list[Answer] = field(default_factory=list)
    left_in_round: int | None = None
    refused: str | None = None

    def judged(self, task: Task, rows: Sequence[Row]) -> Judged:
        """Its figure on the rows that it answered."""
        return task.quality.judge(rows[: len(self.answers)], [one.value for one in self.answers])

    def rank(self, task: Task, rows: Sequence[Row]) -> tuple[float, int]:
        """What it is sorted by."""
        if not self.answers:
            return order(float("nan"), self.candidate.length)
        return order(self.judged(task, rows).score, self.candidate.length)


def optimise_words(engine: Engine, task: Task, config: PromptConfig, seed: int, progress: Progress) -> Outcome:
    """The prompt that does best on (a sample of) `task.valid`, within `config.budget_requests`.

    Raises BudgetReached where the budget of the whole command ends before: what was answered stays in the cache.
    """
    allowed = Allowance(engine, config.budget_requests)
    how = default_sampling(engine, task, config.max_tokens)
    train = made.short_enough(task, task.train, config.longest_demonstration)
    if len(train) < len(task.train):
        progress.note("training rows too long to show", rows=len(task.train) - len(train))
    proposed = _proposed(allowed, task, train, config, how, seed)
    spent_before = allowed.asked
    rows = _sample(task.valid, config.valid_rows, f"validation {seed}")
    everything = _candidates(task, train, config, proposed, seed)
    n = affordable(len(everything), allowed.left, config)
    tracks = [Track(one) for one in everything[:n]]
    rounds = halve(allowed, task, tracks, rows, config, how, progress)
    tracks.sort(key=lambda one: (-len(one.answers), one.rank(task, rows)))
    winner, default = tracks[0], next((one for one in tracks if one.candidate is everything[0]), None)
    log = {
        "way": "words",
        "metric": task.metric,
        "chosen_on": "valid",
        "requests": {"budget": config.budget_requests, "asked": allowed.asked, "proposing": spent_before},
        "rows": {"train": len(task.train), "too_long_to_show": len(task.train) - len(train), "valid": len(rows)},
        "proposing": _proposing_log(proposed),
        "rounds": rounds,
        "winner": winner.candidate.name,
        "candidates": [_entry(one, task, rows) for one in tracks],
        "not_tried": [one.name for one in everything[n:]],
    }
    return Outcome(
        prompt=to_prompt(task, winner.candidate.instruction, tags=("optimised",)),
        winner=winner.candidate.name,
        score=winner.judged(task, rows).score,
        default=default.judged(task, rows).score if default else None,
        n_demonstrations=len(winner.candidate.instruction.demonstrations),
        log=log,
    )


def halve(
    engine: Allowance,
    task: Task,
    tracks: Sequence[Track],
    rows: Sequence[Row],
    config: PromptConfig,
    how: Sampling,
    progress: Progress,
) -> list[dict[str, int]]:
    """Rounds of more rows for fewer candidates, until the rows or the requests are used up; what each round asked."""
    sizes = round_sizes(len(tracks), config.keep)
    alive, done, rounds = list(tracks), 0, list[dict[str, int]]()
    for number, size in enumerate(sizes):
        for one in alive[size:]:
            one.left_in_round = number
        alive = alive[:size]
        new = min(len(rows) - done, engine.left // (len(sizes) - number) // len(alive))
        if new < 1:
            continue
        try:
            for one in alive:
                _answer(engine, task, one, rows[done : done + new], config, how)
                progress.update(engine.asked, engine.requests, candidates=len(alive), rows=done + new)
        except AllowanceUsed:
            # Rows that an upstream refused were asked again one by one: what this round did not end does not count.
            done = _undo(alive, done)
            break
        alive = _accepted(alive)
        done += new
        alive.sort(key=lambda one: one.rank(task, rows))
        rounds.append({"candidates": len(alive), "rows": done, "requests": len(alive) * new})
    if not done:
        raise DataError("the requests ended before one round of candidates was judged", remedy="raise budget_requests")
    return rounds


def _answer(engine: Engine, task: Task, track: Track, rows: Sequence[Row], config: PromptConfig, how: Sampling) -> None:
    """Adds a candidate's answers. A prompt that the engine refuses as such takes its candidate out, not the search."""
    try:
        track.answers += ask(engine, task, rows, track.candidate.instruction, how=how, batch=config.batch)
    except EngineError as error:
        if not error.blames_the_request:
            raise
        track.refused, track.answers = error.message, []


def _accepted(tracks: Sequence[Track]) -> list[Track]:
    """The candidates whose prompts the engine takes. Raises EngineError where it takes none."""
    accepted = [one for one in tracks if one.refused is None]
    if not accepted:
        remedy = "shorten the task's instruction and label descriptions, or give an engine that reads more"
        raise EngineError(f"the engine refused every prompt: {tracks[0].refused}", remedy=remedy)
    return accepted


def round_sizes(n: int, keep: float) -> list[int]:
    """How many candidates are in each round: all, then the kept share, down to the last two."""
    sizes = [n]
    while sizes[-1] > 2:
        sizes.append(max(2, min(math.ceil(sizes[-1] * keep), sizes[-1] - 1)))
    return sizes


def affordable(n: int, requests: int, config: PromptConfig) -> int:
    """The most of `n` candidates that can each answer `first_rows` rows in their round's part of the requests."""
    while n > 1 and n * config.first_rows > requests // len(round_sizes(n, config.keep)):
        n -= 1
    return n


def _undo(tracks: Sequence[Track], done: int) -> int:
    """Takes back the answers of a round that could not be finished, and gives the rows that count.

    In the first round there is nothing to go back to: there, those who answered all of its rows stay.
    """
    most = done or max(len(one.answers) for one in tracks)
    for one in tracks:
        one.answers = one.answers[:most] if len(one.answers) >= most else []
    return most


def _proposed(
    engine: Allowance, task: Task, train: Sequence[Row], config: PromptConfig, how: Sampling, seed: int
) -> Proposed | None:
    """The engine's own instructions; None where the budget leaves no room for them."""
    room = min(config.reflect_rows, len(train), config.budget_requests // _REFLECTING_SHARE - config.proposals)
    if room < _FEWEST_REFLECTED:
        return None
    return propose(engine, task, _sample(train, room, f"reflection {seed}"), config.proposals, how)


def _candidates(
    task: Task, train: Sequence[Row], config: PromptConfig, proposed: Proposed | None, seed: int
) -> list[Candidate]:
    wordings = made.instructions(task, proposed.instructions if proposed else ())
    pairs: list[tuple[str, str]] = []
    if proposed and task.kind == "classify":
        shown = _sample(train, proposed.n_rows, f"reflection {seed}")
        pairs = made.confusions(shown, proposed.answers)
    return made.product(wordings, made.selections(task, train, config.demonstrations, pairs, seed))


def _sample(rows: Sequence[Row], n: int, seed: str) -> list[Row]:
    return random.Random(seed).sample(list(rows), min(n, len(rows)))


def _proposing_log(proposed: Proposed | None) -> dict[str, Any]:
    if proposed is None:
        return {"why_not": "no proposals are wanted, or too few requests for them"}
    return {
        "rows": proposed.n_rows,
        "misjudged": proposed.misjudged,
        "proposed": len(proposed.instructions),
        "diagnoses": list(proposed.diagnoses),
        "problems": list(proposed.problems),
    }


def _entry(track: Track, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    one = track.candidate
    return {
        "name": one.name,
        "instruction": one.instruction.text,
        "demonstrations": len(one.instruction.demonstrations),
        "selection": one.selection,
        "length": one.length,
        "rows": len(track.answers),
        **(figures(track.judged(task, rows)) if track.answers else {"score": None, "low": None, "high": None}),
        "problems": dict(count_problems(track.answers)),
        "refused": track.refused,
        "left_in_round": track.left_in_round,
    }
