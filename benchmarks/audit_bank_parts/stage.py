"""How the bank asks the audit: from two folders, as a user's audit opens them, to evidence and a verdict."""

from __future__ import annotations

from pathlib import Path

from audit_bank_parts.measure import Measured
from nacre.errors import CheckpointError
from nacre.lifecycle.audit import calibration
from nacre.lifecycle.audit.kernel.canonicalise import canonicalise
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.weights import policy
from nacre.lifecycle.audit.weights.side import Settings, Side
from nacre.lifecycle.audit.weights.tokens import shared_tokens

LOOSEST = 0.01  # what is measured; the report decides at the audit's own level and shows both
TABLE = calibration.TABLE  # set by the command that measures


def measure(subject: Path, reference: Path) -> Measured:
    """The verdict of stages 1 and 3, with the nulls of `TABLE`."""
    opened = open_subject(subject), open_subject(reference)
    try:
        ours, theirs = (canonicalise(one) for one in opened)
    except CheckpointError as error:
        return Measured({}, verdict="UNTESTABLE", reason=error.message)
    options = policy.Options(calibration=calibration.load(TABLE), alpha=LOOSEST)
    found = policy.compare(*opened, ours, theirs, options)
    numbers = found.detail.get("numbers", {})
    return Measured(
        {one.test: one.value for one in found.evidence},
        {one.test: one.p_value for one in found.evidence},
        {one.test: one.tier for one in found.evidence},
        found.verdict,
        found.kind,
        found.share,
        numbers.get("rank"),
        found.p_value,
        found.reason or found.text,
    )


def probes(subject: Path, reference: Path) -> Measured:
    """The statistics of every probe without a table: what calibration needs."""
    opened = open_subject(subject), open_subject(reference)
    ours, theirs = (canonicalise(one) for one in opened)
    shared = shared_tokens(*opened, ours, theirs)
    assert opened[0].tensors is not None
    assert opened[1].tensors is not None
    a, b = Side(ours, opened[0].tensors, shared.a), Side(theirs, opened[1].tensors, shared.b)
    found = [one.probe(a, b, Settings()) for one in (policy.basis, policy.invariant, policy.body, policy.polar)]
    return Measured({one.test: one.value for one in found})
