"""The result of a climb as an artifact of the store: `result.json`, `report.html`, and the rungs as its parents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nacre.data.write import write_json
from nacre.ladder.kept import RESULT, STAGE
from nacre.ladder.report import render
from nacre.ladder.result import LadderResult
from nacre.ladder.steps import Ground, Solved
from nacre.lineage.durable import write_atomic
from nacre.lineage.record import Parent, Record
from nacre.recipe.report import keep_report

REVISION = 2
REPORT = "report.html"


def keep(result: LadderResult, ground: Ground, solved: Sequence[Solved], margin: float) -> LadderResult:
    """The result with the place of its report. One made of the same answers, prices and margin is used again."""
    parents = tuple(
        Parent(relation, one.ref, one.record.digest, one.record.licence, input=f"{relation}-{number}")
        for number, each in enumerate(solved)
        for relation, one in (("evaluates", each.rung), ("made_from", each.answers))
    )
    failures = {row.name: row.reason for row in result.rows if not row.ok}
    record = Record(
        name=f"ladder/{result.task}/report",
        version=0,
        kind="report",
        digest="",
        parents=parents,
        stage=STAGE,
        revision=REVISION,
        config={
            "language": result.language, "margin": margin, "prices": asdict(result.prices), "not_measured": failures,
        },
        seed=ground.seed,
        machine=dict(result.machine),
        created=result.created,
    )  # fmt: skip

    def write(folder: Path) -> None:
        final = replace(result, report=REPORT)
        write_json(folder / RESULT, final.to_dict())
        write_atomic(folder / REPORT, render(final).encode())

    return replace(result, report=str(keep_report(ground.store, record, write).path / REPORT))
