"""The nearest public family of a design, by the distance of their graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from nacre.lifecycle.audit.kernel.families import FAMILIES, Family
from nacre.lifecycle.audit.kernel.graph import distance


@dataclass(frozen=True)
class Nearest:
    """The nearest family, how many operations away it is, which, and the families no tensor tells from it."""

    family: str
    distance: int
    changes: tuple[str, ...]
    also: tuple[str, ...]


def nearest(graph: Sequence[str], function: Mapping[str, Any]) -> Nearest:
    """The nearest family of the table; of equally near ones that which the declared fields fit, then the first."""
    found = [(*distance(graph, lines), family) for family, lines in _table()]
    least = min(one[0] for one in found)
    tied = [one for one in found if one[0] == least]
    chosen = max(tied, key=lambda one: _fit(one[2], function))
    also = tuple(one[2].name for one in tied if one is not chosen and one[1] == chosen[1])
    return Nearest(chosen[2].name, least, chosen[1], also)


def _fit(family: Family, function: Mapping[str, Any]) -> int:
    """1 where everything that the family declares is declared, 0 where it declares nothing, -1 otherwise."""
    if not family.declared:
        return 0
    fits = all(re.fullmatch(pattern, str(function.get(field, ""))) for field, pattern in family.declared.items())
    return 1 if fits else -1


@cache
def _table() -> tuple[tuple[Family, tuple[str, ...]], ...]:
    return tuple((family, family.design().lines()) for family in FAMILIES)
