"""The result of a climb as an artifact of the store: `result.json`, `report.html`, and the rungs as its parents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from nacre.data.write import write_json
from nacre.ladder.report import render
from nacre.ladder.result import LadderResult
from nacre.ladder.steps import Ground, Solved
from nacre.lineage.durable import write_atomic
from nacre.lineage.record import Parent, Record, fingerprint
from nacre.lineage.workspace import begin, lock, publish
from nacre.recipe import machine

STAGE, REVISION = "ladder.report", 1
RESULT, REPORT = "result.json", "report.html"


def keep(result: LadderResult, ground: Ground, solved: Sequence[Solved]) -> LadderResult:
    """The result with the place of its report. One made of the same answers and prices before is used again."""
    parents = tuple(
        Parent(relation, one.ref, one.record.digest, one.record.licence, input=f"{relation}-{number}")
        for number, each in enumerate(solved)
        for relation, one in (("evaluates", each.rung), ("made_from", each.answers))
    )
    failures = {row.name: row.reason for row in result.rows if not row.ok}
    config = {"language": result.language, "prices": asdict(result.prices), "not_measured": failures}
    name = f"ladder/{result.task}/report"
    value = fingerprint(STAGE, REVISION, config, ground.seed, parents)
    with lock(ground.store, name, lambda holder: None):
        found = ground.store.find(name, value)
        folder = found.path if found is not None else None
        if folder is None:
            space = begin(ground.store, name, value)
            final = replace(result, report=REPORT)
            write_json(space.out / RESULT, final.to_dict())
            write_atomic(space.out / REPORT, render(final).encode())
            record = Record(
                name=name,
                version=0,
                kind="report",
                digest="",
                fingerprint=value,
                parents=parents,
                stage=STAGE,
                revision=REVISION,
                config=config,
                seed=ground.seed,
                versions=machine.describe_versions(),
                machine=dict(result.machine),
                created=result.created,
            )
            made = publish(ground.store, space, record)
            folder = ground.store.folder(made.name, made.version)
    return replace(result, report=str(folder / REPORT))
