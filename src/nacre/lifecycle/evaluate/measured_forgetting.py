"""From what was right on each task after each stage to figures and report, without torch.

T stages and as many tasks; stage i (from 0) has learnt the tasks 0 to i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.errors import DataError
from nacre.lifecycle.evaluate.content import Figure, Report, Table
from nacre.lifecycle.evaluate.markup import ends, percent
from nacre.lifecycle.evaluate.measured import Measured, Setting, measurement, said
from nacre.lifecycle.evaluate.words import Words
from nacre.metrics.bootstrap import Interval, interval, mean_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Learnt:
    """What was right: for each task an array (stages from its own on, rows), 1 or 0. `told` likewise where the task is
    told, so that the answer is one of its classes. `stages` and `tasks` are names."""

    stages: Sequence[str]
    tasks: Sequence[str]
    untold: Sequence[Floats]
    told: Sequence[Floats]


def summary(right: Sequence[Floats], setting: Setting) -> dict[str, Interval]:
    """Average accuracy after the last stage, backward transfer (Lopez-Paz & Ranzato 2017, equation 3) and forgetting
    (Chaudhry et al. 2018, equations 4 and 5), with intervals by resampling rows: a row counts after every stage at
    once, and the best stage of a task is found anew in each resample.
    """
    if len(right) < 2:
        raise DataError("one task has nothing to forget", remedy="give two stages and tasks or more")
    n_rows, width = sum(one.shape[1] for one in right), sum(len(one) + 1 for one in right)
    table, row, column, places = np.zeros((n_rows, width)), 0, 0, []
    for one in right:
        stages, n = one.shape
        table[row : row + n, column : column + stages] = one.T
        table[row : row + n, column + stages] = 1
        places.append((column, stages))
        row, column = row + n, column + stages + 1

    def accuracies(sums: Floats) -> list[Floats]:
        """(R, stages) of each task."""
        return [sums[:, at : at + n] / np.maximum(sums[:, [at + n]], 1) for at, n in places]

    def average(sums: Floats) -> Floats:
        return _mean([one[:, -1] for one in accuracies(sums)])

    def backward(sums: Floats) -> Floats:
        return _mean([one[:, -1] - one[:, 0] for one in accuracies(sums)[:-1]])

    def forgotten(sums: Floats) -> Floats:
        return _mean([one[:, :-1].max(axis=1) - one[:, -1] for one in accuracies(sums)[:-1]])

    named = {"average_accuracy": average, "backward_transfer": backward, "forgetting": forgotten}
    return {name: interval(table, of_sums, setting.bootstrap) for name, of_sums in named.items()}


def forgetting(learnt: Learnt, setting: Setting) -> Measured:
    """The two matrices with their summaries: the task is not told, which is the headline, and told."""
    words = Words(setting.language)
    figures: dict[str, Any] = {"stages": list(learnt.stages), "tasks": list(learnt.tasks)}
    cards: list[Figure] = []
    tables: list[Table] = []
    for right, ending in ((learnt.untold, ""), (learnt.told, "_told")):
        found = summary(right, setting)
        matrix = [[mean_interval(each, setting.bootstrap) for each in task] for task in right]
        figures |= {f"{name}{ending}": one.as_dict() for name, one in found.items()}
        figures[f"accuracy{ending}"] = {
            task: {learnt.stages[number + place]: one.as_dict() for place, one in enumerate(after)}
            for number, (task, after) in enumerate(zip(learnt.tasks, matrix, strict=True))
        }
        # A transfer or a loss lies in -1..1, where the line of a share from 0 to 1 would mislead.
        cards += [
            Figure(f"{name}{ending}", one, "percent" if name == "average_accuracy" else "number")
            for name, one in found.items()
        ]
        tables.append(_table(f"after_stages{ending}", learnt, matrix, words))
    average, lost = figures["average_accuracy"], figures["forgetting"]
    verdict = words(
        "verdict_forgetting",
        tasks=len(learnt.tasks),
        value=percent(average["value"]),
        interval=said(words, cards[0].value) if isinstance(cards[0].value, Interval) else "",
        lost=f"{100 * lost['value']:.1f}",
    )
    report = Report(
        title=setting.title,
        verdict=verdict,
        language=setting.language,
        figures=cards,
        notes=[*setting.notes, words("about_forgetting")],
        tables=tables,
        settings=measurement(setting, sum(one.shape[1] for one in learnt.untold)),
    )
    return Measured(figures, report)


def _mean(of_tasks: Sequence[Floats]) -> Floats:
    mean: Floats = np.stack(of_tasks).mean(axis=0)
    return mean


def _table(title: str, learnt: Learnt, matrix: Sequence[Sequence[Interval]], words: Words) -> Table:
    """A line per stage, a column per task; blank where the task was still to come."""
    rows = []
    for stage, name in enumerate(learnt.stages):
        cells = []
        for task, after in enumerate(matrix):
            one = after[stage - task] if stage >= task else None
            low_high = " … ".join(ends(one, "percent")) if one else ""
            cells.append(f"{percent(one.value)} ({low_high})" if one else "")
        rows.append([name, *cells])
    return Table(title, [words("after"), *learnt.tasks], rows)


def names_of(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures that a lineage record keeps."""
    return tuple(name for name in found if name.startswith(("average_accuracy", "backward_transfer", "forgetting")))
