"""Which vector store serves an index: exact search while that is quick, else a store built from the vectors."""

from __future__ import annotations

import numpy as np

from nacre.tiers.retrieval.index import Index
from nacre.tiers.retrieval.stores.flat import Flat
from nacre.tiers.retrieval.vectors import VectorStore


def open_store(index: Index) -> VectorStore:
    """The store of an index."""
    passages = list(index.passages.every())
    keys = np.array([one.key for one in passages], dtype=np.int64)
    return Flat(keys, index.vectors(), [one.filterable for one in passages])
