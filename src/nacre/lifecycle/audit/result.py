"""The pairs of one audit as one object: what `nacre audit --json` prints and a report artifact keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nacre.errors import GateRefused, GateUnanswered, UsageError, closest
from nacre.lifecycle.audit.verdict import WORDS, Pair

UNDECIDED = ("SAME_DESIGN", "INCONCLUSIVE", "UNTESTABLE")  # verdicts on a pair that answer no question of derivation
GATES = tuple(word.lower().replace("_", "-") for word in WORDS)


def as_object(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The strongest pair's fields, `references` in the order of their evidence, and where there are several, `pairs`
    with every one of them. `mixture`: what several references make up together of the subject."""
    plain = [pair.to_dict() for pair in pairs]
    found = {
        "subject": pairs[0].subject,
        "references": [pair.reference for pair in pairs],
        **{
            name: plain[0][name]
            for name in ("verdict", "summary", "stages", "rename_map", "control", "cost", "digests")
        },
    }
    together = (one["stages"].get("weights", {}).get("detail", {}).get("mixture") for one in plain)
    found["mixture"] = next((one for one in together if one), None)
    return found | ({"pairs": plain} if len(pairs) > 1 else {})


def parse_gate(text: str) -> frozenset[str]:
    """The verdicts named in a comma list (`derived,shared-init`). Raises UsageError for a word that is none."""
    names = [name.strip().lower().replace("_", "-") for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GATES:
            raise UsageError(f"--gate {name}: no such verdict", remedy=closest(name, GATES))
    if not names:
        raise UsageError("--gate names no verdict", remedy=f"some of {', '.join(GATES)}")
    # A gate against what derives is one against what is the same all the more.
    return frozenset([*names, "identical"] if "derived" in names else names)


def pass_gate(pairs: Sequence[Pair], refused: frozenset[str]) -> None:
    """Raises GateRefused (exit 3) where the verdict on a pair is one of those refused, and GateUnanswered (exit 1)
    where it is none of them and decides nothing: who asks for a gate must not take "could not tell" for "fine".
    No gate at all (an empty set) passes."""
    if not refused:
        return
    hit = [pair for pair in pairs if _word(pair) in refused]
    if hit:
        raise GateRefused(
            f"the gate refuses {pairs[0].subject}: {_told(hit)}", remedy="read the report; change --gate to let it pass"
        )
    undecided = [pair for pair in pairs if pair.verdict in UNDECIDED]
    if undecided:
        raise GateUnanswered(
            f"the gate is neither passed nor refused: nothing was decided about {pairs[0].subject}: {_told(undecided)}",
            remedy="mend what the report says is missing; or name these verdicts in --gate, to end with 3 on them",
        )


def _word(pair: Pair) -> str:
    return pair.verdict.lower().replace("_", "-")


def _told(pairs: Sequence[Pair]) -> str:
    return "; ".join(f"{pair.verdict} beside {pair.reference}" for pair in pairs)
