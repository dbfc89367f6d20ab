"""The search for a wording, for an engine that only embeds: every text is embedded once, every candidate judged on all.

With vectors at hand a candidate costs a matrix product, so nothing is halved; the requests go into the texts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.data.write import write_json
from nacre.engine.protocol import Engine
from nacre.errors import ConfigError
from nacre.metrics.quality import Judged
from nacre.tiers.asking.vectors import NamedVectors, corpus_vectors, label_vectors, rank_by_vectors, similarity
from nacre.tiers.prompt.allowance import Allowance, Remembered
from nacre.tiers.prompt.label_wording import (
    LabelWording,
    RankWording,
    label_wordings,
    rank_wordings,
    worded_passages,
    worded_queries,
)
from nacre.tiers.prompt.outcome import Outcome, figures, order
from nacre.tiers.prompt.rung import VECTORS_FILE
from nacre.tiers.prompt.stages import PromptConfig
from nacre.tiers.task import Row, Task

EXAMPLES_FILE = "examples.json"


@dataclass(frozen=True)
class Tried:
    """A wording, its vectors, and its figure on the validation rows."""

    wording: LabelWording | RankWording
    named: NamedVectors
    judged: Judged


def optimise_similarity(engine: Engine, task: Task, config: PromptConfig, seed: int, keep: Path | None) -> Outcome:
    """The wording that does best on `task.valid`, within `config.budget_requests` batches of texts.

    With `keep` the winner's vectors, and the training rows among its texts, are written there.
    """
    allowed = Allowance(engine, config.budget_requests)
    memory = Remembered(allowed, config.batch)
    if task.kind == "rank":
        tried, not_tried, n_rows = _rank(memory, allowed, task, config, seed)
    else:
        tried, not_tried, n_rows = _classify(memory, allowed, task, config, seed)
    default = tried[0]
    best = min(tried, key=lambda one: order(one.judged.score, one.wording.length))
    examples = best.wording.examples if isinstance(best.wording, LabelWording) else {}
    if keep is not None:
        best.named.save(keep / VECTORS_FILE)
        if examples:
            write_json(keep / EXAMPLES_FILE, {label: list(texts) for label, texts in examples.items()})
    log = {
        "way": "similarity",
        "metric": task.metric,
        "chosen_on": "valid",
        "requests": {"budget": config.budget_requests, "asked": allowed.asked},
        "rows": {"train": len(task.train), "valid": n_rows},
        "texts_read_only_in_part": memory.truncated,
        "winner": best.wording.name,
        "candidates": [
            _entry(one) for one in sorted(tried, key=lambda one: order(one.judged.score, one.wording.length))
        ],
        "not_tried": not_tried,
    }
    return Outcome(
        prompt=best.wording.prompt,
        winner=best.wording.name,
        score=best.judged.score,
        default=default.judged.score,
        n_demonstrations=sum(map(len, examples.values())),
        log=log,
        examples=examples,
    )


def _classify(
    memory: Remembered, allowed: Allowance, task: Task, config: PromptConfig, seed: int
) -> tuple[list[Tried], list[str], int]:
    """Label wordings take at most half of the requests, validation rows the rest."""
    wordings = label_wordings(task, config.label_examples, config.draws, seed)
    most = allowed.left * config.batch
    texts: set[str] = set()
    chosen: list[LabelWording] = []
    for one in wordings:
        more = texts | {text for label in one.texts.values() for text in label}
        if chosen and len(more) > most // 2:
            break
        chosen, texts = [*chosen, one], more
    rows = _sample(task.valid, min(config.valid_rows, most - len(texts)), seed, config)
    # All texts in one go: batches are full, and the requests are those that were counted on.
    memory.embed([*sorted(texts), *(str(row["text"]) for row in rows)])
    tried = []
    for one in chosen:
        named = label_vectors(memory, one.texts, config.batch)
        answers = similarity(memory, task, rows, named, temperature=config.temperature, batch=len(rows))
        tried.append(Tried(one, named, task.quality.judge(rows, [answer.value for answer in answers])))
    return tried, [one.name for one in wordings[len(chosen) :]], len(rows)


def _rank(
    memory: Remembered, allowed: Allowance, task: Task, config: PromptConfig, seed: int
) -> tuple[list[Tried], list[str], int]:
    """Wordings in order, as long as the requests last; the corpus is embedded once per wording of passages."""
    rows = _sample(task.valid, config.valid_rows, seed, config)
    named_by_texts: dict[tuple[str, ...], NamedVectors] = {}
    tried: list[Tried] = []
    not_tried: list[str] = []
    for one in rank_wordings(task):
        passages = worded_passages(one.prompt, task.corpus)
        key = tuple(str(row["text"]) for row in passages)
        queries = worded_queries(one.prompt, rows)
        cost = math.ceil(len(queries) / config.batch)
        cost += 0 if key in named_by_texts else math.ceil(len(key) / config.batch)
        if cost > allowed.left:
            if not tried:
                what = f"budget_requests is {config.budget_requests}; the corpus and the validation rows take {cost}"
                raise ConfigError(what, remedy=f"give {cost} or more, or a larger batch than {config.batch}")
            not_tried.append(one.name)
            continue
        if key not in named_by_texts:
            named_by_texts[key] = corpus_vectors(memory, passages, config.batch)
            memory.forget(key)
        answers = rank_by_vectors(memory, task, queries, named_by_texts[key], top=config.top, batch=config.batch)
        judged = task.quality.judge(rows, [answer.value for answer in answers])
        tried.append(Tried(one, named_by_texts[key], judged))
    return tried, not_tried, len(rows)


def _sample(rows: Sequence[Row], n: int, seed: int, config: PromptConfig) -> list[Row]:
    least = min(config.first_rows, len(rows))
    if n < least:
        what = (
            f"budget_requests is {config.budget_requests}: no {least} validation rows can be judged besides the labels"
        )
        raise ConfigError(what, remedy="raise budget_requests, or embed more texts per request (batch)")
    return random.Random(f"validation {seed}").sample(list(rows), min(n, len(rows)))


def _entry(one: Tried) -> dict[str, Any]:
    wording = one.wording
    entry: dict[str, Any] = {"name": wording.name, "length": wording.length, **figures(one.judged)}
    if isinstance(wording, LabelWording):
        n_texts = sum(map(len, wording.texts.values()))
        entry |= {
            "texts": n_texts,
            "examples": sum(map(len, wording.examples.values())),
            "per_label": wording.per_label,
        }
    return entry
