"""An audit as an artifact of the store: `result.json` with its `sentences.json`, `report.html`, and what it infers in
its lineage record.

The record's field `audit` holds the subject, the verdict beside each reference, and as parents of basis `inferred`
what the subject derives from; `nacre trace SUBJECT` draws them beside witnessed and declared ones. The audit reads no
record to decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from nacre.data.write import write_json
from nacre.lifecycle.audit.audit import AuditOptions
from nacre.lifecycle.audit.identity import is_whole
from nacre.lifecycle.audit.kept import RESULT, SENTENCES, STAGE, sentences_of
from nacre.lifecycle.audit.report import render
from nacre.lifecycle.audit.result import as_object
from nacre.lifecycle.audit.sentences import deciding
from nacre.lifecycle.audit.verdict import Pair
from nacre.lineage.durable import write_atomic
from nacre.lineage.record import Cost, Parent, Record
from nacre.lineage.store import Store, check_name
from nacre.recipe import machine
from nacre.recipe.report import keep_report

REVISION = 1
REPORT = "report.html"
# What an audit finds -> the relation that a recipe would have recorded; otherwise `made_from`.
RELATIONS: Mapping[str, str] = {
    "fine-tuned": "finetuned_from",
    "lora": "finetuned_from",
    "re-embedded": "finetuned_from",
    "vocabulary-extended": "finetuned_from",
    "quantized": "quantized_from",
    "pruned": "pruned_from",
    "merged": "merged_from",
    "trained-on": "trained_on",
}


def record(pairs: Sequence[Pair], options: AuditOptions, store: Store) -> str:
    """Keeps an audit as `audit/NAME@VERSION` and gives that reference; one of the same bytes, stages and code that
    came to the same verdicts is kept once."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    kept = Record(
        name=artifact_name(pairs[0].subject),
        version=0,
        kind="report",
        digest="",
        parents=_parents(pairs),
        stage=STAGE,
        revision=REVISION,
        config={
            "stages": list(options.stages), "alpha": options.alpha, "language": options.language,
            "subject": pairs[0].subject, "verdicts": {pair.reference: pair.verdict for pair in pairs},
            "code": machine.code_digest(),
        },
        seed=options.seed,
        cost=Cost(sum(float(pair.cost.get("seconds", 0.0)) for pair in pairs)),
        machine=machine.describe_machine("cpu"),
        created=created,
        extra={"audit": told(pairs)},
    )  # fmt: skip

    def write(folder: Path) -> None:
        write_json(folder / RESULT, as_object(pairs))
        write_json(folder / SENTENCES, sentences_of(pairs))
        write_atomic(folder / REPORT, render(pairs, options.language, created[:10]).encode())

    return keep_report(store, kept, write).ref


def told(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What `lineage/inferred.py` reads: the subject, each reference's verdict, the inferred parents."""
    first = pairs[0]
    return {
        "subject": {"ref": first.subject, "digest": _whole(first.digests.get("subject"))},
        "verdicts": [
            {"ref": one.reference, "digest": _whole(one.digests.get("reference")), "verdict": one.verdict}
            for one in pairs
        ],
        "inferred": [inferred(one) for one in pairs if _is_parent(one)],
    }


def inferred(pair: Pair) -> dict[str, Any]:
    """The reference as a parent of the subject: relation by the kind, with how sure the audit is."""
    stage = deciding(pair)
    kind = stage.kind if stage else None
    return {
        "relation": RELATIONS.get(kind or "", "made_from"),
        "ref": pair.reference,
        "digest": _whole(pair.digests.get("reference")),
        "basis": "inferred",
        "verdict": pair.verdict,
        "kind": kind,
        "p_value": stage.p_value if stage else None,
        "tier": stage.tier if stage else None,
    }


def artifact_name(subject: str) -> str:
    """`intents/tune@2` -> `audit/intents/tune`; a path by its last part, in letters that may name an artifact."""
    is_path = subject.startswith(("/", ".", "~")) or PurePath(subject).is_absolute()
    bare = PurePath(subject).name if is_path else subject.partition("@")[0]
    parts = [re.sub(r"[^\w.-]+", "-", part).strip("-._") for part in bare.split("/")]
    # A part may not be digits alone, for that is a version, nor empty.
    parts = [f"of-{part}" if not part or part.isdigit() else part[:80] for part in parts]
    return check_name("/".join(["audit", *parts][:4]))


def _parents(pairs: Sequence[Pair]) -> tuple[Parent, ...]:
    first = pairs[0]
    ours = Parent("evaluates", first.subject, _whole(first.digests.get("subject")), input="subject")
    theirs = [
        Parent("evaluates", one.reference, _whole(one.digests.get("reference")), input=f"reference-{number}")
        for number, one in enumerate(sorted(pairs, key=lambda pair: pair.reference), 1)
    ]
    return (ours, *theirs)


def _is_parent(pair: Pair) -> bool:
    """Whether the subject derives from the reference; data that a model of the reference was trained on do not."""
    stage = deciding(pair)
    is_child = stage is None or stage.detail.get("model") != "reference"
    return pair.verdict in ("DERIVED", "IDENTICAL") and is_child and not _is_itself(pair)


def _is_itself(pair: Pair) -> bool:
    """Whether subject and reference are the same bytes or one address: no parent of itself."""
    ours, theirs = (_whole(pair.digests.get(side)) for side in ("subject", "reference"))
    return pair.subject == pair.reference or (ours is not None and ours == theirs)


def _whole(digest: str | None) -> str | None:
    return digest if is_whole(digest) else None
