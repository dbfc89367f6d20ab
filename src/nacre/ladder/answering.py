"""A rung answers the test rows: in batches, each kept at once, so that a kill or an empty budget loses one at most."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nacre.data.read import read
from nacre.data.write import write_jsonl
from nacre.engine.protocol import BudgetReached
from nacre.engine.room import EngineRoom, Spent
from nacre.errors import DataError
from nacre.ladder.answer import AnswerConfig
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.rung import Answer, Rung, open_rung
from nacre.tiers.task import Row

PREDICTIONS = "predictions.jsonl"
_WARM_UP = 2


class PartlyAnswered(BudgetReached):
    """The budget ended after `answered` of the test rows."""

    def __init__(self, error: BudgetReached, answered: int, rows: int) -> None:
        super().__init__(f"{error.message}, after {answered:,} of {rows:,} test rows", remedy=error.remedy)
        self.answered = answered


def answer_test(config: AnswerConfig, work: Work) -> Mapping[str, Scalar]:
    """Writes `predictions.jsonl`; raises PartlyAnswered where the budget ends before the rows do."""
    rows = list(islice(read(work.inputs["test"] / "test.jsonl"), config.rows))
    if not rows:
        raise DataError(f"{work.inputs['test']} holds no test row", remedy="give the artifact of the stage task.test")
    with closing(open_rung(work.inputs["rung"], work.engines)) as rung:
        kept = _kept(rung, rows, config.batch, work)
    write_jsonl(work.out / PREDICTIONS, kept)
    problems = Counter(str(one["problem"]) for one in kept if one["problem"])
    served = sorted({str(one["served_by"]) for one in kept if one["served_by"]})
    figures: dict[str, Scalar] = {"examples": len(kept), "unanswered": sum(one["value"] is None for one in kept)}
    figures |= {f"problem_{name}": count for name, count in sorted(problems.items())}
    if served:
        figures["served_by"] = ", ".join(served)
    if config.latency_rows:
        figures |= _measured(work.inputs["rung"], rows, config.latency_rows, work.engines)
    return figures


def _kept(rung: Rung, rows: Sequence[Row], batch: int, work: Work) -> list[dict[str, Any]]:
    journal = work.scratch / PREDICTIONS
    kept = _read_journal(journal, rows)
    with journal.open("a", encoding="utf-8") as file:
        while len(kept) < len(rows):
            part = rows[len(kept) : len(kept) + batch]
            try:
                answers = rung.answer(part)
            except BudgetReached as error:
                answers = _one_by_one(rung, part)
                kept += _plain(part, answers)
                raise PartlyAnswered(error, len(kept), len(rows)) from error
            plain = _plain(part, answers)
            file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in plain)
            file.flush()
            kept += plain
            work.progress.update(len(kept), len(rows))
    return kept


def _read_journal(journal: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The answers that an earlier attempt kept; a last line that was cut short, and all after a wrong id, are left."""
    kept: list[dict[str, Any]] = []
    whole = 0
    if journal.is_file():
        for line, row in zip(journal.read_bytes().splitlines(keepends=True), rows, strict=False):
            try:
                one = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or one.get("id") != row["id"]:
                break
            kept.append(one)
            whole += len(line)
        with journal.open("r+b") as file:
            file.truncate(whole)
    return kept


def _one_by_one(rung: Rung, rows: Sequence[Row]) -> list[Answer]:
    """The rows of a batch that were answered before the budget ended: they come from the cache at no cost."""
    answers: list[Answer] = []
    for row in rows:
        try:
            answers += rung.answer([row])
        except BudgetReached:
            break
    return answers


def _plain(rows: Sequence[Row], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    plain = []
    for row, one in zip(rows, answers, strict=False):
        usage = asdict(one.usage)
        usage.pop("cached")  # of this process, not of the answer
        plain.append(
            {
                "id": row["id"],
                "value": one.value,
                "problem": one.problem,
                "scores": {name: round(float(score), 6) for name, score in one.scores.items()},
                "usage": usage,
                "citations": [asdict(citation) for citation in one.citations],
                "raw": one.raw,
                "served_by": one.served_by,
            }
        )
    return plain


def _measured(folder: Path, rows: Sequence[Row], most: int, engines: EngineRoom) -> dict[str, Scalar]:
    """Milliseconds per row, asked one at a time without a cache, and what those calls used.

    Nothing where the budget is used up: a figure that was not measured is not there.
    """
    room = engines.uncached()
    sample = rows[: min(most, len(rows))]
    milliseconds = []
    with closing(open_rung(folder, room)) as rung:
        try:
            for row in sample[:_WARM_UP]:
                rung.answer([row])
            _restart(room.spent)
            for row in sample:
                began = time.perf_counter()
                rung.answer([row])
                milliseconds.append(1000 * (time.perf_counter() - began))
        except BudgetReached:
            return {}
    spent = room.spent
    return {
        "latency_rows": len(milliseconds),
        "latency_ms_p50": round(float(np.percentile(milliseconds, 50)), 3),
        "latency_ms_p95": round(float(np.percentile(milliseconds, 95)), 3),
        "latency_ms_mean": round(float(np.mean(milliseconds)), 3),
        "calls_per_row": spent.requests / len(milliseconds),
        "uncounted_calls": spent.uncounted,
        "read_tokens_per_row": (spent.tokens - spent.embedded_tokens - spent.written_tokens) / len(milliseconds),
        "written_tokens_per_row": spent.written_tokens / len(milliseconds),
        "embedded_tokens_per_row": spent.embedded_tokens / len(milliseconds),
    }


def _restart(spent: Spent) -> None:
    """Leaves the warm-up out of the ledger."""
    for name, value in asdict(Spent()).items():
        setattr(spent, name, value)
