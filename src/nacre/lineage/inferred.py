"""What audits concluded about an artifact: its inferred parents, and where they disagree with what is recorded.

An audit keeps in its record's field `audit` the subject it looked at, its verdict beside each reference, and the
parents it inferred. Nothing here reads weights: it lays what was concluded beside what was witnessed or declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nacre.errors import NacreError
from nacre.lineage.record import Parent
from nacre.lineage.store import Store

PREFIX = "audit/"
# Relations that hand weights on: an audit that was able to look and found nothing contradicts them.
OF_WEIGHTS = ("finetuned_from", "quantized_from", "pruned_from", "merged_from")
FINDS_DERIVATION = ("DERIVED", "IDENTICAL")
_LOOKED = ("NO_EVIDENCE", "SHARED_INIT", "SAME_DESIGN", "INCONCLUSIVE")


@dataclass(frozen=True)
class Conclusion:
    """One audit's verdict on the artifact beside one reference; `parent` where it infers that it derives from it."""

    audit: str
    ref: str
    digest: str | None
    verdict: str
    parent: Parent | None = None


def conclusions(store: Store, ref: str, digest: str | None) -> list[Conclusion]:
    """What the newest audits in the store say of an artifact, the last word on each reference.

    An audit is of the artifact when it looked at the same bytes; where it hashed none, when it had the same reference.
    """
    found: dict[str, Conclusion] = {}
    if not (store.root / "store" / "audit").is_dir():
        return []
    for name in store.names():
        for version in store.versions(name) if name.startswith(PREFIX) else ():
            try:
                record = store.get(name, version).record
            except NacreError:
                continue  # a broken record is a warning of its own artifact
            told = record.extra.get("audit") if record else None
            if record and isinstance(told, Mapping) and _is_of(told, ref, digest):
                found |= {one.ref: one for one in _read(record.ref, told)}
    return list(found.values())


def disagreements(ref: str, recorded: Sequence[Parent], above: Iterable[str], said: Sequence[Conclusion]) -> list[str]:
    """Sentences where audits and records differ. `above` are references and digests of all recorded ancestors.

    An inferred parent that no record names; a recorded parent whose weights the audit did not find.
    """
    known, found = set(above), []
    for one in said:
        if one.parent is not None and recorded and not known & {one.ref, one.digest or one.ref}:
            found.append(f"{one.audit} infers that {ref} derives from {one.ref}, which no record of it names")
        for parent in recorded:
            if is_unconfirmed(parent, one):
                found.append(
                    f"{ref} is {parent.basis} to be {parent.relation} {parent.ref}; {one.audit} does not confirm it "
                    f"({one.verdict})"
                )
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
