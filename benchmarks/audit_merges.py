"""How near the shares of a merge are that the audit tells from trained models: linear, SLERP, DARE and TIES.

python benchmarks/audit_merges.py --out DIR [--side report] [--ways linear,slerp,dare] [--record]

DIR is that of the bank (`audit_bank.py`). A subject is a merge of two children of one parent (`+tuned-1` and
`+sibling`); it is held against the parent and both children, and against both children alone. One row for each merge
and set of references. DARE drops half of either child's changes; TIES keeps half, and has no share that were true.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import record
from audit_bank_parts.making import load
from nacre.lifecycle.audit.attacks import merging
from nacre.lifecycle.audit.attacks.files import Stored
from nacre.lifecycle.audit.attacks.model import Model
from nacre.lifecycle.audit.audit import AuditOptions, Opened, open_side
from nacre.lifecycle.audit.together import with_mixture
from nacre.lifecycle.audit.verdict import Pair, StageVerdict
from nacre.lifecycle.audit.weights import basis
from nacre.lifecycle.audit.weights.side import Settings, Side

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
CHILDREN = ("tuned-1", "sibling")
NEAR, ABOVE = 0.05, 0.3  # what counts as near, and the shares of which it is asked


@dataclass(frozen=True)
class Family:
    """A parent and its two children, as folders."""

    base: Path
    first: Path
    second: Path


def families(models: Path, side: str) -> Iterator[Family]:
    """The parents of a side of which both children are there."""
    for first in sorted(models.glob(f"{side}-*+{CHILDREN[0]}")):
        base = models / first.name.removesuffix(f"+{CHILDREN[0]}")
        found = Family(base, first, models / f"{base.name}+{CHILDREN[1]}")
        if all((one / "model.safetensors").exists() for one in (found.base, found.first, found.second)):
            yield found


def merged(way: str, share: float, family: Family, seed: int) -> Model:
    """The merge: `share` of the first child, the rest of the second."""
    base, first, second = (load(one) for one in (family.base, family.first, family.second))
    if way == "linear":
        return merging.merge_linear(first, second, share)
    if way == "slerp":
        return merging.merge_slerp(first, second, share)
    if way == "ties":
        return merging.merge_ties(base, [first, second], share)
    return merging.merge_dare(base, [first, second], [share, 1 - share], 0.5, seed)


def beside(subject: Path, family: Family, options: AuditOptions) -> dict[str, list[Pair]]:
    """The pairs with their mixture, for each set of references. Of stage 3 only the test of neurons' order runs, which
    lines the matrices up: that all are related is known here, and whether it is found is the bank's question."""
    ours = open_side(subject, options)
    found: list[tuple[Pair, Opened]] = []
    for folder in (family.base, family.first, family.second):
        theirs = open_side(folder, options)
        order = basis.probe(_side(ours), _side(theirs), Settings(seed=options.seed))
        stage = StageVerdict("weights", "DERIVED", "", evidence=(order,))
        found.append((Pair(str(subject), str(folder), {"weights": stage}, "DERIVED", ""), theirs))
    return {
        "base and children": with_mixture(ours, found, options.seed),
        "children": with_mixture(ours, found[1:], options.seed),
    }


def _side(one: Opened) -> Side:
    assert one.canonical is not None
    assert one.subject.tensors is not None
    return Side(one.canonical, one.subject.tensors)


def row(way: str, share: float, references: str, family: Family, pairs: list[Pair]) -> dict[str, Any]:
    """What was told, and how far the shares of both children are from the truth."""
    told = pairs[-1].stages["weights"].detail.get("mixture") or {}
    got = {Path(one["reference"]).name: one["share"] for one in told.get("shares", ())}
    shares = [got.get(one.name) for one in (family.first, family.second)]
    errors = [
        None if one is None else round(one - true, 4) for one, true in zip(shares, (share, 1 - share), strict=True)
    ]
    return {
        "parent": family.base.name, "merge": way, "share": share, "references": references,
        "is_merge": told.get("is_merge"), "way": told.get("way", ""),
        "explained": _rounded(told.get("explained")),
        "hits": _rounded((told.get("entrywise") or {}).get("hits")),
        "error_first": "" if errors[0] is None else errors[0], "error_second": "" if errors[1] is None else errors[1],
    }  # fmt: skip


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)


def counted(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Of how many children with a true share of at least 30 % the share told is within 0.05."""
    for way, references in dict.fromkeys((one["merge"], one["references"]) for one in rows):
        group = [one for one in rows if (one["merge"], one["references"]) == (way, references)]
        asked = [(one, error) for one in group for name, true in (("error_first", one["share"]),
                 ("error_second", 1 - one["share"])) if true >= ABOVE - 1e-9 for error in [one[name]]]  # fmt: skip
        near = sum(bool(one["is_merge"]) and error != "" and abs(error) <= NEAR for one, error in asked)
        known = sum(bool(one["is_merge"]) for one in group)
        yield f"{way:8} {references:18} shares near {near} of {len(asked)}; told to be a merge {known} of {len(group)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the bank's folder")
    parser.add_argument("--part", default="hour")
    parser.add_argument("--side", default="calibration", choices=("calibration", "report"))
    parser.add_argument("--ways", default="linear,slerp,dare")
    parser.add_argument("--record", action="store_true", help="append the rows to results/audit_merges.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    options, where, rows = AuditOptions(stages=("weights",)), record.machine(["nacre", "torch"]), []
    for family in families(given.out / given.part / "models", given.side):
        for way in given.ways.split(","):
            for place, share in enumerate(SHARES):
                with tempfile.TemporaryDirectory() as top:
                    subject = Stored.of(merged(way, share, family, place)).write(Path(top, "subject"))
                    for one in family.base.glob("*token*"):
                        shutil.copy(one, subject)
                    for references, pairs in beside(subject, family, options).items():
                        rows.append(row(way, share, references, family, pairs))
                        print(*list(rows[-1].values()), flush=True)
    print(*counted(rows), sep="\n")
    if given.record:
        record.append("audit_merges", [{**where, "side": given.side, **one} for one in rows])


if __name__ == "__main__":
    main()
