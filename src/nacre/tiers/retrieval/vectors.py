"""What every vector store does: keep vectors by key, find the nearest by cosine, filter, delete.

Vectors are normalised by the caller, so that the dot product is the cosine. Keys are whole numbers below 2^63.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nacre.errors import DataError

Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]
Fields = Mapping[str, Any]
# Field -> the value it must have, or one of several. A field of a row that is a list matches by any of its members.
Filters = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Near:
    """The nearest rows of one query, the nearest first: keys (K,) and cosines (K,)."""

    keys: Keys
    scores: Vectors


class VectorStore(Protocol):
    """Vectors by key. A contract test holds every store to this page."""

    def upsert(self, keys: Keys, vectors: Vectors, fields: Sequence[Fields]) -> None:
        """Adds rows, or replaces those whose key is there: keys (N,), unit vectors (N, D), N mappings."""
        ...

    def delete(self, keys: Keys) -> None:
        """Takes rows out; keys that are not there are passed over."""
        ...

    def search(self, queries: Vectors, k: int, filters: Filters | None = None) -> list[Near]:
        """The nearest `k` rows of each of the unit vectors (Q, D), of those that `filters` let through."""
        ...

    def keys(self) -> Keys:
        """Every key there is, ascending."""
        ...

    def close(self) -> None:
        """Ends the connection; what was written stays."""
        ...


def unit(vectors: Vectors) -> Vectors:
    """Vectors (N, D) at length 1; one of length 0 stays. Raises DataError for what is not finite."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise DataError(f"the vector of row {bad} is not finite", remedy="check the embedding engine")
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    return np.asarray(array / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def lets_through(fields: Fields, filters: Filters) -> bool:
    """Whether a row passes: every filtered field has one of the wanted values."""
    for name, wanted in filters.items():
        have = values_of(fields.get(name))
        if not have & set([wanted] if isinstance(wanted, str) else wanted):
            return False
    return True


def values_of(value: Any) -> set[str]:
    """A field's values as text: members of a list each, true and false in lower case, nothing for None."""
    if value is None or isinstance(value, Mapping):
        return set()
    if isinstance(value, list | tuple):
        return set().union(*map(values_of, value)) if value else set()
    return {str(value).lower() if isinstance(value, bool) else str(value)}


def tags(fields: Fields) -> list[str]:
    """A row's fields as `name=value`, sorted: how stores with one list of keywords filter."""
    return sorted(f"{name}={value}" for name, one in fields.items() for value in values_of(one))


def wanted_tags(filters: Filters) -> list[list[str]]:
    """Per filtered field, the tags of which a row must have one."""
    return [
        [f"{name}={value}" for value in ([wanted] if isinstance(wanted, str) else wanted)]
        for name, wanted in filters.items()
    ]
