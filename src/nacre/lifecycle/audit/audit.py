"""The audit: a subject beside each of its references, every stage that can be tested, the strongest finding first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nacre.errors import CheckpointError, NacreError, ReferenceNotFound, UsageError, closest
from nacre.lifecycle.audit.calibration import LEVEL, Calibration
from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.counting import CountingSource
from nacre.lifecycle.audit.identity import identity
from nacre.lifecycle.audit.kernel import canonicalise
from nacre.lifecycle.audit.library import expanded
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.said import clauses, say
from nacre.lifecycle.audit.sentences import summarise
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.together import is_candidate, with_direction, with_mixture
from nacre.lifecycle.audit.verdict import LEAST_P, WORDS, Pair, StageVerdict, Word, overall, untestable
from nacre.lifecycle.audit.weights.side import Kept
from nacre.lineage.store import Store
from nacre.progress import Progress, Silent
from nacre.recipe import machine

TESTED = ("kernel", "tokenizer", "weights", "data")
# What a file can do to a stage. Anything else is a fault of Nacre and is not hidden.
_COSTS_A_STAGE = (NacreError, OSError, MemoryError, np.linalg.LinAlgError)


@dataclass(frozen=True)
class AuditOptions:
    """`stages` are those tested. `alpha`: the largest chance of error at which a tokenizer or data set is called
    DERIVED; `weights_alpha`: that of weights; both corrected for the number of references. `base` is where an adapter's
    base lies, `seed` what samples are drawn from. `fields` of rows are compared, all texts where empty; `canaries` are
    texts some of which were planted in a data set, `shuffled` says that its rows were put in their order at random.
    `calibration` holds the nulls of stage 3, None: those shipped."""

    stages: tuple[str, ...] = TESTED
    alpha: float = 0.01
    weights_alpha: float = LEVEL
    seed: int = 0
    language: str = "en"
    base: str | Path | None = None
    fields: tuple[str, ...] = ()
    canaries: Path | None = None
    shuffled: bool = False
    calibration: Calibration | None = None
    store: Store | None = None
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True)
class Opened:
    """A side, opened and brought under canonical names once. Without `canonical`, `reason` says why. `kept` is what
    stage 3 has looked at already."""

    subject: Subject
    canonical: Canonical | None
    reason: str
    digest: str | None
    source: CountingSource | None
    kept: Kept = field(default_factory=Kept, compare=False)

    @property
    def bytes_read(self) -> int:
        return self.source.bytes_read if self.source else 0


def audit(subject: str | Path, references: Sequence[str | Path], options: AuditOptions | None = None) -> list[Pair]:
    """The verdicts on `subject` beside each reference, the strongest evidence first.

    A reference that is a folder of model folders stands for all of them. What is damaged costs the stage that needs
    it. Raises ReferenceNotFound for a name that names nothing, UsageError for a stage that does not exist, and
    CheckpointError where nothing of the subject, or of an only reference, can be read.
    """
    options = options or AuditOptions()
    check_stages(options.stages)
    names = expanded(references)
    if not names:
        raise UsageError("there is nothing to hold the subject against", remedy="give a reference: --against REF")
    ours = open_side(subject, options)
    pairs, related = [], []
    for number, name in enumerate(names, 1):
        options.progress.update(number, len(names), reference=str(name))
        pair, theirs = _audited(ours, name, len(names), options)
        if theirs is not None and is_candidate(pair):  # only these stay open
            related.append((pair, theirs))
        else:
            pairs.append(pair)
    told = with_mixture(ours, related, options.seed)
    pairs += [with_direction(pair, ours, theirs) for pair, (_, theirs) in zip(told, related, strict=True)]
    return [replace(pair, summary=summarise(pair, options.language)) for pair in sorted(pairs, key=_strength)]


def check_stages(stages: Sequence[str]) -> None:
    """Raises UsageError for a stage that is none."""
    for one in stages:
        if one not in TESTED:
            raise UsageError(f"no stage {one!r}", remedy=closest(one, TESTED))
    if not stages:
        raise UsageError("no stage is named", remedy=f"give some of {', '.join(TESTED)}")


def open_side(ref: str | Path, options: AuditOptions) -> Opened:
    """`ref`, opened, its tensors counted, its kernel under canonical names where that can be told."""
    subject = open_subject(ref, options.store, options.base)
    source = None if subject.tensors is None else CountingSource(subject.tensors)
    subject = subject if source is None else replace(subject, tensors=source)
    digest = identity(subject, options.store)
    if "kernel" in subject.missing:
        return Opened(subject, None, subject.missing["kernel"], digest, source)
    try:
        return Opened(subject, canonicalise(subject), "", digest, source)
    except _COSTS_A_STAGE as error:
        return Opened(subject, None, _said(error), digest, source)


def _audited(ours: Opened, name: str | Path, count: int, options: AuditOptions) -> tuple[Pair, Opened | None]:
    """One pair, its summary left open, and the reference as it was opened. Of several references one that cannot be
    read is a pair that says so."""
    machine.reset_peak_memory()
    began = time.monotonic()
    try:
        theirs = open_side(name, options)
    except ReferenceNotFound:
        raise
    except CheckpointError as error:
        if count == 1:
            raise
        return _unread(ours, name, error, options), None
    before = ours.bytes_read
    stages, seconds = _stages(ours, theirs, count, options)
    cost = {
        "seconds": round(time.monotonic() - began, 3),
        "tensor_bytes_read": ours.bytes_read - before + theirs.bytes_read,
        "tensor_bytes": _size(ours) + _size(theirs),
        "peak_memory_mib": _rounded(machine.peak_memory_mib()),
        "stage_seconds": seconds,
        "references": count,
    }
    kernel = stages.get("kernel")
    renamed: Mapping[str, str] = kernel.detail.get("rename_map", {}) if kernel else {}
    if kernel:  # it stands in the pair itself
        stages["kernel"] = replace(kernel, detail={k: v for k, v in kernel.detail.items() if k != "rename_map"})
    pair = Pair(
        subject=ours.subject.ref,
        reference=theirs.subject.ref,
        stages=stages,
        verdict=overall(stages),
        summary="",
        rename_map=renamed,
        control=_control(stages.get("weights")),
        cost=cost,
        digests={"subject": ours.digest, "reference": theirs.digest},
    )
    return pair, theirs


def _unread(ours: Opened, name: str | Path, error: NacreError, options: AuditOptions) -> Pair:
    reason = say("{where}: {reason}", where=name, reason=error.message)
    stages = {stage: untestable(stage, reason) for stage in options.stages}
    digests = {"subject": ours.digest, "reference": None}
    return Pair(ours.subject.ref, str(name), stages, "UNTESTABLE", "", control=_control(None), digests=digests)


Stage = Callable[[Opened, Opened, int, AuditOptions], StageVerdict]


def _stages(
    ours: Opened, theirs: Opened, count: int, options: AuditOptions
) -> tuple[dict[str, StageVerdict], dict[str, float]]:
    """Every stage asked for, in order, with its seconds; what a file does to a stage is that stage's reason."""
    found: dict[str, StageVerdict] = {}
    seconds: dict[str, float] = {}
    for name in (one for one in TESTED if one in options.stages):
        began = time.monotonic()
        try:
            found[name] = _STAGES[name](ours, theirs, count, options)
        except UsageError:
            raise
        except _COSTS_A_STAGE as error:
            found[name] = untestable(name, _said(error))
        seconds[name] = round(time.monotonic() - began, 3)
    return found, seconds


def _kernel(ours: Opened, theirs: Opened, count: int, options: AuditOptions) -> StageVerdict:
    from nacre.lifecycle.audit.kernel import compare

    for side in (ours, theirs):
        if side.canonical is None:
            return untestable("kernel", say("{where}: {reason}", where=side.subject.ref, reason=side.reason))
    assert ours.canonical is not None
    assert theirs.canonical is not None
    return compare(ours.subject, theirs.subject, ours.canonical, theirs.canonical)


def _tokenizer(ours: Opened, theirs: Opened, count: int, options: AuditOptions) -> StageVerdict:
    from nacre.lifecycle.audit.tokenizers import compare

    return _for_all(compare(ours.subject, theirs.subject), count, options.alpha)


def _weights(ours: Opened, theirs: Opened, count: int, options: AuditOptions) -> StageVerdict:
    """The policy corrects for the number of references itself."""
    for side in (ours, theirs):
        if side.subject.tensors is None:
            lacking = side.subject.missing.get("weights", "there are no weights")
            return untestable("weights", say("{where}: {reason}", where=side.subject.ref, reason=lacking))
        if side.canonical is None:
            return untestable("weights", say("{where}: {reason}", where=side.subject.ref, reason=side.reason))
    from nacre.lifecycle.audit.weights.policy import Options, compare
    from nacre.lifecycle.audit.weights.side import Settings

    assert ours.canonical is not None
    assert theirs.canonical is not None
    settings = Settings(seed=options.seed)
    chosen = Options(settings=settings, alpha=options.weights_alpha, references=count, calibration=options.calibration)
    return compare(ours.subject, theirs.subject, ours.canonical, theirs.canonical, chosen, ours.kept)


def _data(ours: Opened, theirs: Opened, count: int, options: AuditOptions) -> StageVerdict:
    from nacre.lifecycle.audit.data import compare
    from nacre.lifecycle.audit.data.settings import DataSettings

    settings = DataSettings(
        options.fields, options.canaries, alpha=options.alpha, seed=options.seed, shuffled=options.shuffled
    )
    return _for_all(compare(ours.subject, theirs.subject, settings), count, options.alpha)


_STAGES: Mapping[str, Stage] = {"kernel": _kernel, "tokenizer": _tokenizer, "weights": _weights, "data": _data}


def _for_all(one: StageVerdict, count: int, alpha: float) -> StageVerdict:
    """The verdict with its p-value times the number of references; a DERIVED that this takes away is not decided."""
    if one.p_value is None or count == 1:
        return one
    p = min(1.0, one.p_value * count)
    if one.verdict == "DERIVED" and p > alpha:
        template = "not decided: p = {alone:.2g} for this reference alone, {p:.2g} for all {n}"
        reason = say(template, alone=one.p_value, p=p, n=count)
        text = clauses((reason, one.text))
        return replace(one, verdict="INCONCLUSIVE", kind=None, text=text, reason=reason, p_value=p)
    return replace(one, p_value=p)


def _control(weights: StageVerdict | None) -> dict[str, Any]:
    """What became of the control of stage 3, the stage whose tests need one."""
    if weights is None or weights.verdict == "UNTESTABLE":
        return {"ran": False, "fired": False, "why": "the weights were not compared"}
    told = weights.detail.get("control")
    if isinstance(told, Mapping):
        return dict(told)
    if weights.verdict == "IDENTICAL":
        return {"ran": False, "fired": False, "why": "equal values need no control"}
    if weights.reason and weights.reason.startswith("the control"):
        return {"ran": True, "fired": True, "why": weights.reason}
    if weights.verdict in ("DERIVED", "SHARED_INIT") and len(weights.evidence) > 1:
        return {"ran": True, "fired": False, "why": "no test fired on an unrelated model of the reference's shape"}
    return {"ran": False, "fired": False, "why": "no test fired, so there was nothing to refute"}


def _strength(pair: Pair) -> tuple[int, float, float, str]:
    """Sorts pairs: stronger verdicts first, then smaller p-values, then more of the parameters equal."""
    order: dict[Word, int] = {word: place for place, word in enumerate(WORDS)}
    p = [one.p_value for one in pair.stages.values() if one.p_value is not None and one.stage in ("weights", "data")]
    equal = [one.value or 0.0 for stage in pair.stages.values() for one in stage.evidence if one.test == "exact"]
    least = max(LEAST_P, min(p, default=1.0))
    return order[pair.verdict], least, -max(equal, default=0.0), pair.reference


def _size(side: Opened) -> int:
    return sum(info.n_bytes for info in side.subject.infos.values())


def _said(error: BaseException) -> str:
    if isinstance(error, NacreError):
        return error.message
    return "there is not enough memory for it" if isinstance(error, MemoryError) else str(error) or type(error).__name__


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
