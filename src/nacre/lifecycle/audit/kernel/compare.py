"""The verdict of stage 1: whether two kernels share a design, and which names, sizes and declared facts differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel.graph import distance
from nacre.lifecycle.audit.kernel.names import templated
from nacre.lifecycle.audit.said import say, term
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import Evidence, StageVerdict, Word

STAGE = "kernel"
_BASIS = {
    "shapes": "",
    "names": " (by tensor names; sizes are declared)",
    "config": " (declared by a config alone; nothing is proven)",
}


def compare(subject: Subject, reference: Subject, a: Canonical, b: Canonical) -> StageVerdict:
    """IDENTICAL: same design and sizes, proven by shapes. SAME_DESIGN: the same operations, whatever names and sizes
    are. NO_EVIDENCE: other operations; the distance is told. Never DERIVED, and never a p-value: public recipes
    explain any design. What configs declare and tensors cannot confirm is told as a difference and moves no verdict.
    """
    steps, changes = distance(a.graph, b.graph)
    renamed = rename_map(a.names, b.names)
    declared = _differing(a.graph, b.graph, "declared: ")
    beside = _differing(a.graph, b.graph, "beside: ")
    sizes = _sizes(a, b)
    verdict = _verdict(a, b, steps, beside)
    detail: dict[str, Any] = {
        "rename_map": renamed,
        "renamed_templates": _templates(renamed),
        "unmapped": {"subject": list(a.unmapped), "reference": list(b.unmapped)},
        "distance": steps,
        "changes": list(changes),
        "sizes": sizes,
        "declared": declared,
        "beside": beside,
        "stored": _differing(a.graph, b.graph, "stored: "),
        "family": {"subject": a.family, "reference": b.family},
        "basis": {"subject": a.basis, "reference": b.basis},
        "notes": {"subject": list(a.notes), "reference": list(b.notes)},
        "ambiguous": {"subject": [list(one) for one in a.ambiguous], "reference": [list(one) for one in b.ambiguous]},
    }
    found = _sentence(verdict, a, b, steps, sizes)
    text = say("{found}; a shared design says nothing about weights", found=found)
    said = say("{n} operations differ", n=steps)
    evidence = Evidence("graph distance", float(steps), text=said, detail={"changes": list(changes)})
    power = "any layer whose operations differ by one" if verdict == "NO_EVIDENCE" else None
    return StageVerdict(STAGE, verdict, text, evidence=(evidence,), not_tested=_open(a, b, declared), power=power,
                        detail=detail)  # fmt: skip


def rename_map(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Our stored names -> theirs, by canonical name; packed tensors are joined with ` + `."""
    by_role: dict[str, str] = {}
    for name, canonical in theirs.items():
        for role in roles_of(canonical):
            by_role[role] = name
    found = {}
    for name, canonical in ours.items():
        names = list(dict.fromkeys(by_role[role] for role in roles_of(canonical) if role in by_role))
        if names:
            found[name] = " + ".join(names)
    return found


def roles_of(canonical: str) -> list[str]:
    """`layers.3.q+k+v` as the three canonical names it stands for."""
    first, *rest = canonical.split("+")
    base = first.rpartition(".")[0].removesuffix(".bias")
    is_bias = first.endswith(".bias")
    if not rest:
        return [canonical]
    base = first.removesuffix(".bias").rpartition(".")[0] if is_bias else first.rpartition(".")[0]
    return [first, *(f"{base}.{one}" for one in rest)]


def _verdict(a: Canonical, b: Canonical, steps: int, beside: Mapping[str, Any]) -> Word:
    if steps:
        return "NO_EVIDENCE"
    is_proven = a.basis == b.basis == "shapes"
    return "IDENTICAL" if is_proven and a.shape and a.shape == b.shape and not beside else "SAME_DESIGN"


def _sentence(verdict: Word, a: Canonical, b: Canonical, steps: int, sizes: Mapping[str, Any]) -> str:
    weakest = next((_BASIS[basis] for basis in ("config", "names") if basis in (a.basis, b.basis)), "")
    if verdict == "IDENTICAL":
        return say("the same kernel: design ({family}) and all sizes{basis}", family=a.family, basis=weakest)
    if verdict == "SAME_DESIGN":
        other = (
            say("other sizes ({names})", names=[term(f"size_{name}") for name in sizes])
            if sizes
            else "no other size known to differ"
        )
        return say("the same design ({family}), {sizes}{basis}", family=a.family, sizes=other, basis=weakest)
    template = "different designs: {n} operations differ between {ours} and {theirs}{basis}"
    return say(template, n=steps, ours=a.family, theirs=b.family, basis=weakest)


def _sizes(a: Canonical, b: Canonical) -> dict[str, list[int | None]]:
    ours, theirs = asdict(a.sizes), asdict(b.sizes)
    return {name: [ours[name], theirs[name]] for name in ours if ours[name] != theirs[name]}


def _differing(ours: tuple[str, ...], theirs: tuple[str, ...], prefix: str) -> dict[str, list[str]]:
    mine = [line.removeprefix(prefix) for line in ours if line.startswith(prefix)]
    yours = [line.removeprefix(prefix) for line in theirs if line.startswith(prefix)]
    only_mine, only_yours = [one for one in mine if one not in yours], [one for one in yours if one not in mine]
    return {"subject": only_mine, "reference": only_yours} if only_mine or only_yours else {}


def _templates(renamed: Mapping[str, str]) -> dict[str, str]:
    pairs = {templated(name): templated(to) for name, to in renamed.items()}
    return {name: to for name, to in pairs.items() if name != to}


def _open(a: Canonical, b: Canonical, declared: Mapping[str, Any]) -> tuple[str, ...]:
    said = []
    if declared:
        said.append("what only configs declare differs (activation, positions, scales): tensors cannot confirm it")
    for who, one in (("subject", a), ("reference", b)):
        if one.basis != "shapes":
            said.append(say("the {side}'s sizes: no shapes are known", side=term(who)))
        if one.ambiguous:
            roles = ["/".join(names) for names in one.ambiguous]
            said.append(say("the {side}'s roles that shapes leave open: {roles}", side=term(who), roles=roles))
    return tuple(said)
