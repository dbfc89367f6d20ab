"""What independently trained tokenizers have in common: the shipped table, and p-values from it.

The table holds the statistics of pairs trained on corpora that share nine tenths of their text, by algorithm and
script; `benchmarks/audit_tokenizers.py` rebuilds it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nacre.lifecycle.audit.tokenizers.vocabulary import Algorithm, Script, Vocabulary
from nacre.lifecycle.audit.verdict import LEAST_P, conformal, holm

DECIDING = ("order", "jaccard")
OVERLAP = "0.9"  # the share of the text that the corpora of the table have in common
ALPHA = 0.01
# A link survives independent training with at most this chance, whatever the links before it did: the assumption of
# `exact`. The largest shares that the table holds, of any eighth of any pair's order, lie well below.
MOST_KEPT = 0.75
LEAST_FALLING = 50  # falling links below which an order is too short: 0.75^50 is below 1e-6

Cell = tuple[Algorithm, Script]


@dataclass(frozen=True)
class Tested:
    """One p-value per statistic (not corrected) and the least one corrected for all of them (Holm)."""

    p: Mapping[str, float]
    least: float


def cells(*sides: Vocabulary) -> set[Cell]:
    """The rows of the table that hold for these vocabularies: algorithm and script of each."""
    return {(side.algorithm, side.script) for side in sides}


def p_values(values: Mapping[str, float], of: Iterable[Cell]) -> Tested:
    """The rank of the statistics among pairs of the table. Several cells: the largest p-value among them."""
    rows = list(of)
    p = {name: max(conformal(value, _null(cell, name)) for cell in rows) for name, value in values.items()}
    return Tested(p, min(holm(list(p.values()))))


def exact(n_links: int, n_kept: int) -> float:
    """P(Binomial(n_links, 3/4) >= n_kept): exact where each link survives with at most that chance, given the links
    before it. Not below 1e-6, as no bank shows that the assumption fails more rarely."""
    log_keep, log_lose = math.log(MOST_KEPT), math.log(1 - MOST_KEPT)
    whole = math.lgamma(n_links + 1)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(n_links - k + 1) + k * log_keep + (n_links - k) * log_lose
        for k in range(n_kept, n_links + 1)
    )
    return min(1.0, max(LEAST_P, math.fsum(math.exp(term) for term in terms)))


def critical(of: Iterable[Cell], name: str) -> float:
    """The least value whose rank reaches ALPHA: what a derivation must keep to be seen."""
    return max(_critical(sorted(_null(cell, name))) for cell in of)


def _critical(null: list[float]) -> float:
    # (1 + #{null >= v}) / (n + 1) <= ALPHA: so many of the null may be as large.
    spared = math.floor(ALPHA * (len(null) + 1)) - 1
    return 1.0 if spared < 0 else null[-1 - spared] if spared < len(null) else 0.0


def table() -> Mapping[str, Any]:
    """The shipped table: `null[algorithm][script][statistic]` lists values, beside how they were made."""
    return _table()


@cache
def _table() -> Mapping[str, Any]:
    loaded: dict[str, Any] = json.loads(files(__package__).joinpath("null.json").read_text(encoding="utf-8"))
    return loaded


def _null(cell: Cell, name: str) -> list[float]:
    """A trie is held against BPE; a script that an algorithm has no row for against all of its rows."""
    algorithm, script = cell
    rows: Mapping[str, Mapping[str, list[float]]] = _table()["null"]["bpe" if algorithm == "trie" else algorithm]
    return rows[script][name] if script in rows else [value for row in rows.values() for value in row[name]]
