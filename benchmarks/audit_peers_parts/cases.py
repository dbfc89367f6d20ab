"""The pairs that every program is asked about: models of the calibration bank, by what was done to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Literal

from audit_bank_parts import making, texts
from audit_bank_parts.plan import Pair, Part, SideName, Spec, bases, parents

Truth = Literal["stranger", "shared-init", "derived"]
_PERMUTED = ("permute-hidden", "permute-neurons", "permute-heads")
_ATTACKED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rotated and folded", ("rotate-hidden",)),
    ("permuted", _PERMUTED),
    ("pruned 50 %", ("prune-0.5",)),
    ("int4", ("int4",)),
)
GROUPS = (
    *("calibration", "same recipe", "other recipe", "shared init", "fine-tuned", "LoRA"),
    *(group for group, _ in _ATTACKED),
    *("merged", "distilled from outputs"),
)
OF_EACH = 9  # bases that an attack is tried on, none twice within a class
PARENTS = 5  # models whose children are asked about
NULLS = {"small": 110, "grouped": 50}  # strangers of one recipe that fix the thresholds of scores


@dataclass(frozen=True)
class Case:
    """A pair of the bank under the class it is counted in. `half`: `calibration` fixes thresholds, `report` counts."""

    group: str
    pair: Pair

    @property
    def half(self) -> SideName:
        return self.pair.side

    @property
    def truth(self) -> Truth:
        return self.pair.truth


def cases(part: Part) -> list[Case]:
    """All pairs: those that fix thresholds first, then the classes of the report side."""
    found = [Case("calibration", pair) for pair in _nulls(part)]
    found += [Case("same recipe", pair) for pair in _same_recipe(part)]
    found += [Case("other recipe", pair) for pair in _other_recipe(part)]
    for number, parent in enumerate(parents(part, "report")[:PARENTS]):
        found += list(_children(parent, number))
    for group, steps in _ATTACKED:
        for base in islice(_in_turn(part, "report"), OF_EACH):
            found.append(Case(group, _pair(base.name, base.name, "derived", steps=steps)))
    return sorted(found, key=lambda one: GROUPS.index(one.group))


def _in_turn(part: Part, side: SideName) -> Iterator[Spec]:
    """Models from scratch, the first seed of every recipe and size, then the second ..."""
    yield from sorted(bases(part, side), key=lambda one: int(one.name.rpartition("-")[2]))


def _pair(source: str, reference: str, truth: Truth, side: SideName = "report", **more: object) -> Pair:
    steps = more.get("steps", ())
    name = f"{'+'.join((source, *steps))}~{reference}"  # type: ignore[misc]
    return Pair(name, side, "peers", source, reference, (), truth=truth, **more)  # type: ignore[arg-type]


def _kin(part: Part, side: SideName) -> dict[tuple[str, str], list[Spec]]:
    """Models from scratch by recipe and size."""
    found: dict[tuple[str, str], list[Spec]] = {}
    for base in bases(part, side):
        found.setdefault((base.recipe.name, base.size.name), []).append(base)
    return found


def _nulls(part: Part) -> Iterator[Pair]:
    """Strangers of one recipe and size on the calibration side, the same number of every recipe."""
    kin = _kin(part, "calibration")
    for size, count in NULLS.items():
        groups = [combinations(models, 2) for (_, name), models in kin.items() if name == size]
        for each in groups:
            for a, b in islice(each, -(-count // len(groups))):
                yield _pair(a.name, b.name, "stranger", "calibration")


def _same_recipe(part: Part) -> Iterator[Pair]:
    """Ten, no model in two of them: three of each recipe in small, two of each in the grouped size."""
    for (_, size), models in _kin(part, "report").items():
        for number in range(3 if size == "small" else 2):
            yield _pair(models[2 * number].name, models[2 * number + 1].name, "stranger")


def _other_recipe(part: Part) -> Iterator[Pair]:
    """Ten of one size and two recipes: seven small, three grouped."""
    kin = _kin(part, "report")
    for size, count in (("small", 7), ("grouped", 3)):
        groups = [models for (_, name), models in kin.items() if name == size]
        for a, b in islice(zip(*groups[:2], strict=True), count):
            yield _pair(a.name, b.name, "stranger")


def _children(parent: Spec, number: int) -> Iterator[Case]:
    """What training made of a parent, and merges of two of its children beside it: two of three kinds in turn."""
    name, turn = parent.name, (number % 3, (number + 1) % 3)
    for word in ("init", "init-other-half"):
        yield Case("shared init", _pair(f"{name}={word}", name, "shared-init"))
    for one in turn:
        yield Case("fine-tuned", _pair(f"{name}+tuned-{('0.1', '1', '3')[one]}", name, "derived"))
        yield Case("LoRA", _pair(f"{name}+lora-{('1', '4', '16')[one]}", name, "derived"))
        how = {"steps": (f"merge-{('linear', 'slerp', 'ties')[one]}-0.5",), "other": f"{name}+sibling"}
        yield Case("merged", _pair(f"{name}+tuned-1", name, "derived", **how))
    yield Case("distilled from outputs", _pair(f"{name}+student", name, "stranger"))


def missing(case: Case, bank: Path) -> list[str]:
    """Models of the bank that the case needs and that are not built."""
    names = (case.pair.source, case.pair.reference, case.pair.other)
    return [one for one in names if one is not None and not (bank / "models" / one / "bank.json").is_file()]


def folders(case: Case, bank: Path, scratch: Path) -> tuple[Path, Path]:
    """Where subject and reference lie; an attacked subject is written under `scratch` once."""
    pair = case.pair
    reference = bank / "models" / pair.reference
    if not pair.steps:
        return bank / "models" / pair.source, reference
    name = hashlib.sha256(pair.name.encode()).hexdigest()
    folder = scratch / name[:16]
    if not folder.is_dir():
        making.subject(pair, bank, folder, int(name[:8], 16) // 2)
    return folder, reference


def reading(case: Case, scratch: Path) -> Path:
    """A file of texts that no model saw, one per line, of the corpus of the reference."""
    corpus = case.pair.reference.split("-")[1]
    path = scratch / f"{corpus}.txt"
    if not path.is_file():
        path.write_text("\n".join(" ".join(one.split()) for one in texts.held_out(corpus)), encoding="utf-8")
    return path
