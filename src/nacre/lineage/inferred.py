"""What audits concluded about an artifact: its inferred parents, and where they disagree with what is recorded.

An audit keeps in its record's field `audit` the subject it looked at, its verdict beside each reference, and the
parents it inferred. Nothing here reads weights: it lays what was concluded beside what was witnessed or declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nacre.errors import NacreError
from nacre.lineage.finding import Finding, find
from nacre.lineage.record import Parent
from nacre.lineage.store import Store

PREFIX = "audit/"
# Relations that hand weights on: an audit that was able to look and found nothing contradicts them.
OF_WEIGHTS = ("finetuned_from", "quantized_from", "pruned_from", "merged_from")
FINDS_DERIVATION = ("DERIVED", "IDENTICAL")
_LOOKED = ("NO_EVIDENCE", "SHARED_INIT", "SAME_DESIGN", "INCONCLUSIVE")


@dataclass(frozen=True)
class Audit:
    """An audit of the store: the field `audit` of its record."""

    ref: str
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Conclusion:
    """One audit's verdict on the artifact beside one reference; `parent` where it infers that it derives from it."""

    audit: str
    ref: str
    digest: str | None
    verdict: str
    parent: Parent | None = None


class Audits:
    """Audits in the order in which they were made, found by what they looked at."""

    def __init__(self, found: Sequence[Audit]) -> None:
        self._found = found
        self._by_subject: dict[str, list[int]] = {}
        for number, one in enumerate(found):
            subject = one.told.get("subject")
            names = (subject.get("ref"), subject.get("digest")) if isinstance(subject, Mapping) else ()
            for name in {name for name in names if isinstance(name, str)}:
                self._by_subject.setdefault(name, []).append(number)

    def conclusions(self, ref: str, digest: str | None) -> list[Conclusion]:
        """What the newest audits say of an artifact, the last word on each reference.

        An audit is of the artifact when it looked at the same bytes; where it hashed none, when it had the same
        reference.
        """
        found: dict[str, Conclusion] = {}
        for number in sorted({*self._by_subject.get(ref, ()), *self._by_subject.get(digest or ref, ())}):
            one = self._found[number]
            if _is_of(one.told, ref, digest):
                found |= {said.ref: said for said in _read(one.ref, one.told)}
        return list(found.values())


def audits(store: Store) -> Audits:
    """Every audit in the store, by name and then the oldest first. Reads each record: list once, ask often."""
    found: list[Audit] = []
    names = store.names() if (store.root / "store" / "audit").is_dir() else []
    for name in names:
        for version in store.versions(name) if name.startswith(PREFIX) else ():
            try:
                record = store.get(name, version).record
            except NacreError:
                continue  # a broken record is a warning of its own artifact
            told = record.extra.get("audit") if record else None
            if record and isinstance(told, Mapping):
                found.append(Audit(record.ref, told))
    return Audits(found)


def disagreements(
    ref: str, recorded: Sequence[Parent], above: Iterable[str], said: Sequence[Conclusion]
) -> list[Finding]:
    """Where audits and records differ. `above` are references and digests of all recorded ancestors.

    An inferred parent that no record names; a recorded parent whose weights the audit did not find.
    """
    known, found = set(above), []
    for one in said:
        if one.parent is not None and recorded and not known & {one.ref, one.digest or one.ref}:
            found.append(find("disagreement", ref, "not_recorded", audit=one.audit, ref=ref, parent=one.ref))
        for parent in recorded:
            if is_unconfirmed(parent, one):
                found.append(find(
                    "disagreement", ref, "not_confirmed", ref=ref, basis=parent.basis, relation=parent.relation,
                    parent=parent.ref, audit=one.audit, verdict=one.verdict,
                ))  # fmt: skip
    return found


def is_unconfirmed(parent: Parent, said: Conclusion) -> bool:
    """Whether an audit held its subject against this recorded parent of weights and did not find them."""
    is_same = parent.ref == said.ref or (parent.digest is not None and parent.digest == said.digest)
    return is_same and parent.relation in OF_WEIGHTS and said.verdict in _LOOKED


def _is_of(told: Mapping[str, Any], ref: str, digest: str | None) -> bool:
    subject = told.get("subject")
    if not isinstance(subject, Mapping):
        return False
    looked_at = subject.get("digest")
    return looked_at == digest if looked_at and digest else subject.get("ref") == ref


def _read(audit: str, told: Mapping[str, Any]) -> list[Conclusion]:
    parents = {one.get("ref"): one for one in told.get("inferred", ()) if isinstance(one, Mapping)}
    out = []
    for one in told.get("verdicts", ()):
        ref, digest, verdict = str(one.get("ref")), one.get("digest"), str(one.get("verdict"))
        by_audit = parents.get(ref)
        parent = None
        if by_audit is not None and verdict in FINDS_DERIVATION:
            extra = {key: by_audit.get(key) for key in ("verdict", "kind", "p_value", "tier")} | {"audit": audit}
            parent = Parent(str(by_audit.get("relation")), ref, digest, basis="inferred", extra=extra)
        out.append(Conclusion(audit, ref, digest, verdict, parent))
    return out
