"""Many kernels by design: which are one design, and what tells its members apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel.graph import design_lines
from nacre.lifecycle.audit.kernel.names import templated
from nacre.lifecycle.audit.kernel.nearest import Nearest, nearest


@dataclass(frozen=True)
class Group:
    """Kernels of one design. `named` holds members with tensor names, `declared` those of a config alone; `same_sizes`
    are sets of members with equal sizes; `spellings` says how many ways of naming tensors the members use."""

    design: str
    nearest: Nearest
    named: tuple[str, ...]
    declared: tuple[str, ...]
    same_sizes: tuple[tuple[str, ...], ...]
    spellings: tuple[tuple[str, ...], ...]


def group(canonicals: Mapping[str, Canonical]) -> list[Group]:
    """Groups of one design, the largest first."""
    by_design: dict[str, list[str]] = defaultdict(list)
    for name, one in canonicals.items():
        by_design[one.design].append(name)
    groups = [_group(design, sorted(names), canonicals) for design, names in by_design.items()]
    return sorted(groups, key=lambda one: (-len(one.named) - len(one.declared), one.design))


def markdown(groups: list[Group]) -> str:
    """The groups as a table."""
    lines = ["| nearest family | distance | by tensor names | by config alone |", "|---|---:|---|---|"]
    for one in groups:
        family = " = ".join([one.nearest.family, *one.nearest.also])
        lines.append(f"| {family} | {one.nearest.distance} | {', '.join(one.named)} | {', '.join(one.declared)} |")
    return "\n".join(lines)


def _group(design: str, names: list[str], canonicals: Mapping[str, Canonical]) -> Group:
    sizes, spellings = defaultdict(list), defaultdict(list)
    for name in names:
        one = canonicals[name]
        sizes[tuple(asdict(one.sizes).values())].append(name)
        if one.names:
            spellings[frozenset(templated(stored) for stored in one.names)].append(name)
    return Group(
        design,
        nearest(design_lines(canonicals[names[0]].graph), {}),
        tuple(name for name in names if canonicals[name].basis != "config"),
        tuple(name for name in names if canonicals[name].basis == "config"),
        tuple(tuple(members) for members in sizes.values() if len(members) > 1),
        tuple(tuple(members) for members in spellings.values()),
    )
