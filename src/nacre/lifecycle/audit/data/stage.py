"""Stage 4: the verdict on two data sets, and what else their rows tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nacre.data.rows import Row
from nacre.errors import NacreError
from nacre.lifecycle.audit.data.contamination import Contamination, contamination
from nacre.lifecycle.audit.data.overlap import Found, Overlap, OverlapConfig, overlap
from nacre.lifecycle.audit.data.teachers import Voices
from nacre.lifecycle.audit.data.texts import DataSet, require_rows
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import Evidence, StageVerdict, untestable

STAGE = "data"
# Sharing fewer rows than these is what two sets of one public source have by chance.
LEAST_ROWS, LEAST_SHARE = 3, 0.01
# Rows of short texts tell by their number alone.
LEAST_SHORT_ROWS, LEAST_SHORT_SHARE = 50, 0.2
NGRAM_MIB = 64  # training rows beyond this are not looked through for n-grams
SOURCES = "both may have taken them from a third set; who was first is not told"


class View:
    """The rows of a split (all where None) of a data set, at every pass."""

    def __init__(self, data: DataSet, split: str | None = None) -> None:
        self._data, self._split = data, split

    def __iter__(self) -> Iterator[Row]:
        return self._data.rows(self._split)


def compare(subject: Subject, reference: Subject, config: OverlapConfig | None = None) -> StageVerdict:
    """Stage 4 of two opened artifacts. A side without data, or with none that can be read, makes it UNTESTABLE."""
    sides: list[DataSet] = []
    for side in (subject, reference):
        if side.data is None:
            return untestable(STAGE, side.missing.get(STAGE, f"{side.ref} has no data set"))
        try:
            sides.append(require_rows(side.data))
        except (NacreError, OSError) as error:
            return untestable(STAGE, f"{side.ref}: {error.message if isinstance(error, NacreError) else error}")
    try:
        return compare_sets(sides[0], sides[1], config)
    except (NacreError, OSError) as error:
        return untestable(STAGE, error.message if isinstance(error, NacreError) else str(error))


def compare_sets(subject: DataSet, reference: DataSet, config: OverlapConfig | None = None) -> StageVerdict:
    """The verdict on two data sets: overlap both ways, contamination of test splits, teachers, refusals."""
    config = config or OverlapConfig()
    heard = {"subject": Voices(), "reference": Voices()}
    hear = (heard["subject"].add, heard["reference"].add)
    found = overlap(View(subject), View(reference), config, hear)
    if not found.subject.rows or not found.reference.rows:
        return untestable(STAGE, "a data set has no text in its rows")
    evidence = [*_overlap_evidence(found)]
    detail: dict[str, Any] = {"overlap": asdict(found)}
    not_tested = ["rows that were translated or rewritten throughout"]
    leaked, skipped = _contamination(subject, reference)
    for name, one in leaked.items():
        evidence.append(_contamination_evidence(name, one))
        detail.setdefault("contamination", {})[name] = asdict(one)
    not_tested += skipped
    if found.near_is_sampled:
        not_tested.append("near-duplicates of all rows: they were looked for in a part drawn by hash, a lower bound")
    for name, side in (("subject", subject), ("reference", reference)):
        voices = heard[name]
        detail[f"voices_{name}"] = voices.to_dict()
        evidence += _voice_evidence(name, voices)
        if side.n_unread:
            not_tested.append(f"{side.n_unread:,} rows of the {name} that cannot be read")
    return _verdict(found, config, tuple(evidence), tuple(not_tested), detail)


def _verdict(
    found: Overlap,
    config: OverlapConfig,
    evidence: tuple[Evidence, ...],
    not_tested: tuple[str, ...],
    detail: dict[str, Any],
) -> StageVerdict:
    ours, theirs = found.subject, found.reference
    rest: dict[str, Any] = {"evidence": evidence, "not_tested": not_tested, "detail": detail}
    if found.is_same_set:
        return StageVerdict(STAGE, "IDENTICAL", f"the same {ours.rows:,} rows of text, in whatever order", **rest)
    text = f"the subject contains {_part(theirs, 'reference')}; {_part(ours, 'subject')} stand in the reference"
    if _is_telling(ours) or _is_telling(theirs):
        return StageVerdict(STAGE, "DERIVED", f"{text}; {SOURCES}", share=round(ours.share, 6), **rest)
    if ours.found or theirs.found:
        reason = f"{ours.found:,} rows in common are no more than two sets of one public source may have"
        return StageVerdict(STAGE, "INCONCLUSIVE", f"not decided: {reason}", reason=reason, **rest)
    power = (
        f"one shared row would have been found among all {ours.rows:,} and {theirs.rows:,}; of near-duplicates "
        f"{3 / max(1, min(ours.near_looked, ours.rows)):.2%} of the subject's rows "
        f"(similarity {config.near_threshold:g}, 95 %)"
    )
    return StageVerdict(STAGE, "NO_EVIDENCE", "no row in common", power=power, **rest)


def _is_telling(side: Found) -> bool:
    long = side.telling + side.near
    many = long >= LEAST_ROWS and long / max(1, side.rows) >= LEAST_SHARE
    short = side.distinct_same >= LEAST_SHORT_ROWS and side.same / max(1, side.rows) >= LEAST_SHORT_SHARE
    return many or short


def _part(side: Found, name: str) -> str:
    low, high = side.interval
    return f"{side.share:.1%} ({low:.1%} to {high:.1%}) of the {name}'s {side.rows:,} rows"


def _overlap_evidence(found: Overlap) -> Iterator[Evidence]:
    for name, side in (("subject", found.subject), ("reference", found.reference)):
        low, high = side.interval
        yield Evidence(
            f"rows of the {name} in the other set",
            side.share,
            text=f"{side.exact:,} of {side.rows:,} rows share their text, {side.near:,} of {side.near_looked:,} "
            "others are near-duplicates",
            detail={"low": low, "high": high, "samples": list(side.samples), "same": side.same},
        )


def _contamination(subject: DataSet, reference: DataSet) -> tuple[dict[str, Contamination], list[str]]:
    """Training rows of each side against the test rows of either, where splits are named."""
    found, skipped = {}, []
    pairs = {
        "the reference's test rows in the subject's training rows": (subject, reference),
        "the subject's test rows in the reference's training rows": (reference, subject),
        "the subject's test rows in its own training rows": (subject, subject),
    }
    for name, (train, test) in pairs.items():
        if "train" not in train.splits() or "test" not in test.splits():
            continue
        small = _size(train.files("train")) <= NGRAM_MIB << 20
        found[name] = contamination(View(train, "train"), View(test, "test"), ngrams=small)
        if not small:
            skipped.append(f"{name}: long n-grams, beyond {NGRAM_MIB} MiB of training rows")
    if not found:
        skipped.append("contamination of test rows: no side has a test split beside training rows of the other")
    return found, skipped


def _contamination_evidence(name: str, one: Contamination) -> Evidence:
    low, high = one.interval
    ngrams = "" if one.train_ngram is None else f"; {one.train_ngram:,} training rows share a long n-gram with one"
    return Evidence(
        name,
        one.same / max(1, one.test_rows),
        text=f"{one.same:,} of {one.test_rows:,} test rows{ngrams}",
        detail={"low": low, "high": high, "samples": list(one.samples)},
    )


def _voice_evidence(name: str, voices: Voices) -> Iterator[Evidence]:
    if not voices.rows_with_answers:
        return
    counts = ", ".join(f"{teacher} {count:,}" for teacher, count in voices.teachers.most_common(5))
    said = f"consistent with answers of {counts}" if counts else "no answer names its maker"
    yield Evidence(
        f"teachers named in the {name}'s answers",
        voices.named / voices.rows_with_answers,
        text=f"{voices.named:,} of {voices.rows_with_answers:,} answers: {said}; {voices.generic:,} more say that a "
        f"model wrote them, {voices.refusals:,} refuse",
    )


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size * (8 if file.suffix == ".gz" else 1) for file in files)
