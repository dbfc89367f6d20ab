"""Stage 4: the verdict on two data sets, and what else their rows tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from nacre.errors import NacreError, UsageError
from nacre.lifecycle.audit.data import wording
from nacre.lifecycle.audit.data.contamination import Contamination, Leak, contamination
from nacre.lifecycle.audit.data.overlap import Found, Overlap, OverlapConfig, overlap
from nacre.lifecycle.audit.data.settings import DataSettings
from nacre.lifecycle.audit.data.teachers import Voices
from nacre.lifecycle.audit.data.texts import DataSet, View, require_rows
from nacre.lifecycle.audit.said import clauses, say, term
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import Evidence, StageVerdict, untestable

STAGE = "data"
# Sharing fewer rows than these is what two sets of one public source have by chance.
LEAST_ROWS, LEAST_SHARE = 3, 0.01
# Rows of short texts tell by their number alone.
LEAST_SHORT_ROWS, LEAST_SHORT_SHARE = 50, 0.2
NGRAM_MIB = 64  # training rows beyond this are not looked through for n-grams
SOURCES = "both may have taken them from a third set; who was first is not told"


def compare(subject: Subject, reference: Subject, settings: DataSettings | None = None) -> StageVerdict:
    """Stage 4 of two opened artifacts: two data sets, or a model and a data set in either order.

    A side without data, or with none that can be read, makes it UNTESTABLE; what the user named wrongly (a field that
    no row has, canaries none of which were planted) raises UsageError.
    """
    settings = settings or DataSettings()
    try:
        for model, data, name in ((subject, reference, "subject"), (reference, subject, "reference")):
            is_model = model.data is None and (model.tensors is not None or model.adapter is not None)
            if is_model and data.data is not None:
                from nacre.lifecycle.audit.data import membership  # imports torch

                return membership.compare(model, data, settings, name)
        sides: list[DataSet] = []
        for side in (subject, reference):
            if side.data is None:
                reason = side.missing.get(STAGE, "there is no data set")
                return untestable(STAGE, say("{where}: {reason}", where=side.ref, reason=reason))
            sides.append(require_rows(side.data, settings.fields))
        return compare_sets(sides[0], sides[1], settings)
    except UsageError:
        raise
    except (NacreError, OSError) as error:
        return untestable(STAGE, error.message if isinstance(error, NacreError) else str(error))


def compare_sets(subject: DataSet, reference: DataSet, settings: DataSettings | None = None) -> StageVerdict:
    """The verdict on two data sets: overlap both ways, contamination of held-out splits, teachers, refusals."""
    settings = settings or DataSettings()
    heard = {"subject": Voices(), "reference": Voices()}
    hear = (heard["subject"].add, heard["reference"].add)
    found = overlap(View(subject), View(reference), settings.overlap, hear)
    for data, part in ((subject, found.subject), (reference, found.reference)):
        if not part.rows and settings.fields:
            raise UsageError(
                f"no row of {data.path.name} has text in {', '.join(settings.fields)}",
                remedy=f"its fields are {', '.join(data.names)}",
            )
        if not part.rows:
            return untestable(STAGE, say("{where}: {reason}", where=data.path.name, reason="no row has text"))
    leaked, not_tested = _contamination(subject, reference)
    evidence = [*_overlap_evidence(found, settings.overlap)]
    evidence += [_contamination_evidence(name, one) for name, one in leaked.items()]
    detail: dict[str, Any] = {
        "overlap": asdict(found),
        "contamination": {str(name): asdict(one) for name, one in leaked.items()},
    }
    notes = [
        *wording.overlap(found, settings.overlap),
        *wording.contamination(leaked),
        *wording.examples(found.examples),
    ]
    not_tested.insert(0, "rows that were translated or rewritten throughout")
    if found.near_is_sampled:
        not_tested.append("near-duplicates of all rows: they were looked for in a part drawn by hash, a lower bound")
    for name, side, part in (("subject", subject, found.subject), ("reference", reference, found.reference)):
        detail[f"voices_{name}"] = heard[name].to_dict()
        evidence += _voice_evidence(name, heard[name])
        notes += wording.reading(name, side, part)
    rest = {"evidence": tuple(evidence), "not_tested": tuple(not_tested), "detail": detail, "notes": tuple(notes)}
    return _verdict(found, settings.overlap, rest)


def _verdict(found: Overlap, config: OverlapConfig, rest: dict[str, Any]) -> StageVerdict:
    ours, theirs = found.subject, found.reference
    if found.is_same_set:
        return StageVerdict(
            STAGE, "IDENTICAL", say("the same {n:,} rows of text, in whatever order", n=ours.rows), **rest
        )
    if _is_telling(ours) or _is_telling(theirs):
        text = clauses((wording.contains(theirs, ours), SOURCES))
        return StageVerdict(STAGE, "DERIVED", text, share=round(ours.share, 6), **rest)
    if ours.found or theirs.found:
        template = "{n:,} rows in common are no more than two sets of one public source may have"
        reason = say(template, n=max(ours.found, theirs.found))
        return StageVerdict(STAGE, "INCONCLUSIVE", say("not decided: {reason}", reason=reason), reason=reason, **rest)
    power = say(
        "one shared row would have been found among all {a:,} and {b:,}; of near-duplicates {share:.2%} of the "
        "subject's rows (similarity {threshold:g}, 95 %)",
        a=ours.rows, b=theirs.rows, share=min(1.0, 3 / max(1, min(ours.near_looked, ours.rows))),
        threshold=config.near_threshold,
    )  # fmt: skip
    return StageVerdict(STAGE, "NO_EVIDENCE", "no row in common", power=power, **rest)


def _is_telling(side: Found) -> bool:
    long = side.telling + side.near
    many = long >= LEAST_ROWS and long / max(1, side.rows) >= LEAST_SHARE
    short = side.distinct_same >= LEAST_SHORT_ROWS and side.same / max(1, side.rows) >= LEAST_SHORT_SHARE
    return many or short


def _overlap_evidence(found: Overlap, config: OverlapConfig) -> Iterator[Evidence]:
    for name, side in (("subject", found.subject), ("reference", found.reference)):
        low, high = side.interval
        yield Evidence(
            say("rows of the {side} in the other set", side=term(name)),
            side.share,
            text=say(
                "{exact:,} of {rows:,} rows share their text, {near:,} of {looked:,} others are near-duplicates "
                "(similarity {threshold:g} or more)",
                exact=side.exact, rows=side.rows, near=side.near, looked=side.near_looked,
                threshold=config.near_threshold,
            ),
            detail={"low": low, "high": high, "same": side.same, "examples": [asdict(one) for one in found.examples]},
        )  # fmt: skip


def _contamination(subject: DataSet, reference: DataSet) -> tuple[dict[Leak, Contamination], list[str]]:
    """Training rows of each side against the held-out rows of either, where splits are named."""
    found: dict[Leak, Contamination] = {}
    skipped: list[str] = []
    sides = {"subject": subject, "reference": reference}
    names = [("reference", "subject"), ("subject", "reference"), ("subject", "subject")]
    if subject.path == reference.path:
        names = [("subject", "subject")]
    for (theirs, ours), split in product(names, ("test", "valid")):
        train, held_out = sides[ours], sides[theirs]
        if "train" not in train.splits() or split not in held_out.splits():
            continue
        small = _size(train.files("train")) <= NGRAM_MIB << 20
        leak = Leak(split, theirs, ours)
        found[leak] = contamination(View(train, "train"), View(held_out, split), ngrams=small and split == "test")
        if not small:
            skipped.append(
                say("{leak}: long n-grams, beyond {size} MiB of training rows", leak=str(leak), size=NGRAM_MIB)
            )
    if not found:
        skipped.append("contamination of held-out rows: no side has a test split beside training rows of the other")
    return found, skipped


def _contamination_evidence(leak: Leak, one: Contamination) -> Evidence:
    low, high = one.interval
    text = say(
        "{same:,} of {rows:,} rows ({distinct:,} different texts)",
        same=one.same,
        rows=one.test_rows,
        distinct=one.distinct,
    )
    if one.train_ngram is not None:
        text = clauses((text, say("{n:,} training rows share a long n-gram with one", n=one.train_ngram)))
    detail = {"low": low, "high": high, "examples": [asdict(each) for each in one.examples]}
    return Evidence(str(leak), one.share, text=text, detail=detail)


def _voice_evidence(name: str, voices: Voices) -> Iterator[Evidence]:
    if not voices.rows_with_answers:
        return
    counts = ", ".join(f"{teacher} {count:,}" for teacher, count in voices.teachers.most_common(5))
    who = say("consistent with answers of {teachers}", teachers=counts) if counts else "no answer names its maker"
    said = say(
        "{n:,} of {rows:,} answers: {who}; {generic:,} more say that a model wrote them, {refusals:,} refuse",
        n=voices.named, rows=voices.rows_with_answers, who=who, generic=voices.generic, refusals=voices.refusals,
    )  # fmt: skip
    if voices.named:
        acted = say("scrubbing would act on {n:,} of the {all:,} that name one", n=voices.scrubbed, all=voices.named)
        said = clauses((said, acted))
    test = say("teachers named in the {side}'s answers", side=term(name))
    yield Evidence(test, voices.named / voices.rows_with_answers, text=said)


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size * (8 if file.suffix == ".gz" else 1) for file in files)
