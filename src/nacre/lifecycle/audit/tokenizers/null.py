"""What independently trained tokenizers have in common: the shipped table, and p-values from it.

The table holds the statistics of pairs trained on corpora that share a known part of their text; it is rebuilt by
`benchmarks/audit_tokenizers.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nacre.lifecycle.audit.tokenizers.vocabulary import Algorithm
from nacre.lifecycle.audit.verdict import conformal, holm

DECIDING = ("kept", "jaccard")
# Share of the text that two corpora have in common: what p-values are known against.
HALF, MOST = "0.5", "0.9"
ALPHA = 0.01


@dataclass(frozen=True)
class Tested:
    """One p-value per statistic (not corrected) and the least one corrected for all of them (Holm)."""

    p: Mapping[str, float]
    least: float


def p_values(values: Mapping[str, float], algorithms: set[Algorithm], overlap: str) -> Tested:
    """The chance of statistics as large between tokenizers of corpora that share `overlap` of their text.

    Two algorithms: the larger of their p-values. A trie is held against BPE.
    """
    p = {name: max(conformal(values[name], _null(one, overlap, name)) for one in algorithms) for name in values}
    return Tested(p, min(holm(list(p.values()))))


def critical(algorithms: set[Algorithm], overlap: str, name: str) -> float:
    """The least value whose corrected p-value reaches ALPHA: what a derivation must keep to be seen."""
    return max(_critical(sorted(_null(one, overlap, name))) for one in algorithms)


def _critical(null: list[float]) -> float:
    # (1 + #{null >= v}) / (n + 1) <= ALPHA / tests: so many of the null may be as large.
    spared = math.floor(ALPHA / len(DECIDING) * (len(null) + 1)) - 1
    return 1.0 if spared < 0 else null[-1 - spared] if spared < len(null) else 0.0


def table() -> Mapping[str, Any]:
    """The shipped table: `null[algorithm][overlap][statistic]` lists values, beside how they were made."""
    return _table()


@cache
def _table() -> Mapping[str, Any]:
    loaded: dict[str, Any] = json.loads(files(__package__).joinpath("null.json").read_text(encoding="utf-8"))
    return loaded


def _null(algorithm: Algorithm, overlap: str, name: str) -> list[float]:
    of = "bpe" if algorithm == "trie" else algorithm
    values: list[float] = _table()["null"][of][overlap][name]
    return values
