"""What the page shows, put into a store: ladders, audits, models that come from each other, a run under way, and names
and texts that an attacker would choose."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ladder_results import answers_of, result_of, rows_of, rows_to_judge
from page_kit import HOSTILE, put

from nacre.errors import ReferenceNotFound
from nacre.ladder import kept, publish
from nacre.ladder.report import render as render_ladder
from nacre.ladder.result import LadderResult, Row
from nacre.lifecycle.audit import recording
from nacre.lifecycle.audit.audit import AuditOptions
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.sentences import summarise
from nacre.lifecycle.audit.verdict import Evidence, Pair, StageVerdict, overall, untestable
from nacre.lineage.record import Parent
from nacre.lineage.store import Resolved, Store
from nacre.lineage.workspace import begin

ATTACK = f"""<!DOCTYPE html><html lang="en"><head><title>t</title><style>body {{ color: green }}</style>
<meta http-equiv="refresh" content="0; url=/page/keys"></head><body>{HOSTILE}
<img src="x" onerror="window.__hit=1"><img src="http://127.0.0.1:9/beacon.png">
<form id="f" action="/page/sign-out" method="post"><button id="send">send</button></form>
<a id="script" href="javascript:window.top.__hit=1">a link</a>
<a id="top" target="_top" href="/page/keys">another</a><p id="text">What the report says.</p></body></html>"""


def ladder_result(language: str = "en", **changes: Any) -> LadderResult:
    """A ladder of six tiers, one more that failed and one that was skipped."""
    tests = rows_to_judge(60, language)
    made = result_of(rows_of(language), tests, answers_of(tests), language)
    failed = Row(4, "tune:large", status="failed", reason=f"no memory {HOSTILE}", remedy="take a smaller one {{ 7*7 }}")
    skipped = Row(5, "pretrain:wide", status="skipped", reason="left out by choice", remedy="--tiers pretrain")
    return replace(made, rows=(*made.rows, failed, skipped), **changes)


def put_ladder(store: Store, result: LadderResult, name: str = "ladder/desk/report", **facts: Any) -> Resolved:
    """The report of a ladder, as `nacre ladder` keeps it."""
    final = replace(result, report=publish.REPORT)
    files = {kept.RESULT: json.dumps(final.to_dict()), publish.REPORT: render_ladder(final, {})}
    config = {"language": final.language, "margin": 0.0, "prices": asdict(final.prices)}
    about = {"kind": "report", "stage": kept.STAGE, "revision": publish.REVISION, "config": config,
             "created": final.created} | facts  # fmt: skip
    return put(store, name, files, **about)


def put_rungs(store: Store) -> None:
    """The rungs that `ladder_result` names."""
    for row in rows_of():
        put(store, f"desk/{row.name}", {"rung.json": "{}"}, kind="rung", stage="ladder.rung")


def audit_pair(subject: str, reference: str, text: str, digests: dict[str, str | None]) -> Pair:
    """A pair with a claim on weights, an open stage, and evidence."""
    proof = Evidence("exact", 0.5, 1e-300, "exact", say("{n} operations differ", n=3), "depths differ")
    weights = StageVerdict(
        "weights", "DERIVED", text, kind="pruned", p_value=1e-9, tier="exact", evidence=(proof,),
        not_tested=(say("{n:,} tokens are shared", n=3),),
    )  # fmt: skip
    kernel = StageVerdict("kernel", "SAME_DESIGN", "the same design")
    stages = {"kernel": kernel, "weights": weights, "data": untestable("data", "there is no data set")}
    pair = Pair(subject, reference, stages, overall(stages), "", digests=digests)
    return replace(pair, summary=summarise(pair))


def put_audit(store: Store, subject: str, *references: str, text: str = "depths differ") -> Resolved:
    """The report of an audit, as `nacre audit` keeps it."""
    pairs = [
        audit_pair(subject, one, text, {"subject": _digest(store, subject), "reference": _digest(store, one)})
        for one in references
    ]
    return store.artifact(recording.record(pairs, AuditOptions(store=store), store))


def put_models(store: Store) -> None:
    """A data set, a model trained on it, one tuned from that, and its evaluation with a report."""
    rows = "".join(json.dumps({"text": f"row {n} {HOSTILE}", "label": "<b>"}) + "\n" for n in range(3))
    data = put(store, "desk/data", {"train.jsonl": rows}, kind="dataset", created="2026-01-02T03:00:00+00:00",
               licence="CC BY 4.0")  # fmt: skip
    base = put(store, "desk/base", {"model.bin": b"1" * 100}, parents=(_parent("trained_on", data),),
               metrics={"valid_loss": 2.5, HOSTILE: 1.0}, created="2026-01-02T03:01:00+00:00")  # fmt: skip
    tuned = put(store, "desk/tuned", {"model.bin": b"2" * 100}, parents=(_parent("finetuned_from", base),),
                metrics={"valid_accuracy": 0.91}, config={"lr": 1e-3, "prompt": "{{ 7*7 }} " + HOSTILE},
                notes=(HOSTILE, "{{ 7*7 }}"), created="2026-01-02T03:02:00+00:00")  # fmt: skip
    put(store, "desk/evaluation", {"report.html": ATTACK, "metrics.json": "{}"}, kind="report", stage="evaluate.test",
        parents=(_parent("evaluates", tuned),), created="2026-01-02T03:03:00+00:00")  # fmt: skip
    put(store, "名字/" + "很长的名字" * 10, {"x": "y"}, notes=("\u202eright to left",), licence=HOSTILE,
        created="2026-01-02T03:04:00+00:00")  # fmt: skip


def begin_run(store: Store, name: str = "desk/training") -> Path:
    """A step under way; gives its log, to which lines can be appended."""
    log = begin(store, name, "sha256:" + "5" * 64).out / "logs" / "metrics.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    append(log, range(1, 6))
    return log


def append(log: Path, steps: range, **more: float) -> None:
    """Lines of a training log: loss by step, and a metric with a name that an attacker chose."""
    with log.open("a", encoding="utf-8") as file:
        for step in steps:
            row = {"time": 1_767_322_800.0 + step, "step": step, "total": 50, "loss": 3 / step, HOSTILE: 1.0 / step}
            file.write(json.dumps(row | more) + "\n")


def damage(folder: Path, file: str, content: str = "{") -> None:
    """Other bytes in the place of a kept file."""
    (folder / file).write_text(content, encoding="utf-8")


def _digest(store: Store, ref: str) -> str:
    """The digest of an artifact; of what lies elsewhere, one of no bytes there are."""
    try:
        record = store.artifact(ref).record
    except ReferenceNotFound:
        record = None
    return record.digest if record else "sha256:" + "cd" * 32


def _parent(relation: str, made: Resolved) -> Parent:
    assert made.record is not None
    return Parent(relation, made.ref, made.record.digest, made.record.licence, input=relation)
