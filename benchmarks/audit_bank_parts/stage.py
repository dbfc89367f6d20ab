"""How the bank asks the audit: from two folders, as a user's audit opens them, to probes and verdict."""

from __future__ import annotations

from pathlib import Path

from audit_bank_parts.measure import Measured
from nacre.errors import CheckpointError
from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel.canonicalise import canonicalise
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import Evidence
from nacre.lifecycle.audit.weights import basis, body, exact, invariant, polar
from nacre.lifecycle.audit.weights.side import Settings, Side
from nacre.lifecycle.audit.weights.tokens import shared_tokens

PROBES = (exact, basis, invariant, body, polar)


def probes_only(subject: Path, reference: Path) -> Measured:
    """The statistics of every probe, without a verdict: what calibration needs."""
    opened = open_subject(subject), open_subject(reference)
    try:
        ours, theirs = _canonical(opened[0]), _canonical(opened[1])
    except CheckpointError as error:
        return Measured({}, verdict="UNTESTABLE", reason=error.message)
    shared = shared_tokens(*opened, ours, theirs)
    sides = [
        Side(one, source, ids)
        for one, source, ids in zip((ours, theirs), (opened[0].tensors, opened[1].tensors), shared[:2], strict=True)
        if source is not None
    ]
    return of_evidence([probe.probe(sides[0], sides[1], Settings()) for probe in PROBES])


def _canonical(subject: Subject) -> Canonical:
    return canonicalise(subject)


def of_evidence(found: list[Evidence]) -> Measured:
    """Values, p-values and tiers by probe."""
    return Measured(
        {one.test: one.value for one in found},
        {one.test: one.p_value for one in found},
        {one.test: one.tier for one in found},
    )
