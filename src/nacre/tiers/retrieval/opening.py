"""Which vector store serves an index: exact search while that is quick, else a graph, or a served database.

`vectors.npy` in the index is the truth. A graph is no part of it, for its bytes differ from build to build: it is kept
under `$NACRE_CACHE/vectors`, made when an index is first searched, and may be deleted at any time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nacre.data.models import CACHE_VARIABLE
from nacre.errors import UsageError
from nacre.lineage.digest import hash_file
from nacre.progress import Progress, Silent
from nacre.tiers.retrieval.passages import FILE, Passage, Passages
from nacre.tiers.retrieval.stores.flat import Flat
from nacre.tiers.retrieval.vectors import Fields, Keys, Vectors, VectorStore

EXACT_UP_TO = 100_000  # passages; see docs/decisions/0004-vector-store.md
_BATCH = 10_000


def open_store(
    folder: Path, passages: Passages, vectors: Vectors, where: str = "auto", progress: Progress | None = None
) -> VectorStore:
    """The store that searches the vectors of the index in `folder`.

    `where`: `exact`, `graph`, an address (`http://HOST:PORT#COLLECTION`, brought up to date first), or `auto`: exact up
    to EXACT_UP_TO passages, else a graph.
    """
    progress = progress or Silent()
    if where.startswith(("http://", "https://")):
        from nacre.tiers.retrieval.stores.qdrant_http import QdrantHttp

        served = QdrantHttp(where, vectors.shape[1], key=os.environ.get("QDRANT_API_KEY"))
        synchronise(served, passages, vectors, progress)
        return served
    if where not in ("auto", "exact", "graph"):
        raise UsageError(f"no vector store {where!r}", remedy="auto, exact, graph, or http://HOST:PORT#COLLECTION")
    if where == "graph" or (where == "auto" and len(vectors) > EXACT_UP_TO):
        return _graph(folder, passages, vectors, progress)
    keys, fields = _rows(list(passages.every()))
    return Flat(keys, np.asarray(vectors), fields)


def synchronise(store: VectorStore, passages: Passages, vectors: Vectors, progress: Progress) -> tuple[int, int]:
    """Brings a store to the state of an index: (passages added, passages taken out). What is there already stays."""
    have = set(store.keys().tolist())
    every = list(passages.every())
    gone = sorted(have - {one.key for one in every})
    store.delete(np.array(gone, dtype=np.int64))
    new = [one for one in every if one.key not in have]
    _upsert(store, new, vectors, progress.update)
    if new or gone:
        progress.note("vector store brought up to date", added=len(new), removed=len(gone))
    return len(new), len(gone)


def _upsert(store: VectorStore, new: list[Passage], vectors: Vectors, update: Callable[[int, int], None]) -> None:
    for begin in range(0, len(new), _BATCH):
        some = new[begin : begin + _BATCH]
        keys, fields = _rows(some)
        store.upsert(keys, np.asarray(vectors[[one.number - 1 for one in some]]), fields)
        update(begin + len(some), len(new))


def _rows(passages: list[Passage]) -> tuple[Keys, list[Fields]]:
    return np.array([one.key for one in passages], dtype=np.int64), [one.filterable for one in passages]


def _graph(folder: Path, passages: Passages, vectors: Vectors, progress: Progress) -> VectorStore:
    """The graph in the cache, made whole under another name first, so that a kill leaves nothing half-made."""
    from nacre.tiers.retrieval.stores.qdrant_edge import QdrantEdge

    home = cache_folder() / hash_file(folder / FILE)[1].removeprefix("sha256:")[:24]
    if not home.is_dir():
        progress.note("building a graph over the vectors, once", passages=len(vectors))
        home.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
        try:
            store = QdrantEdge(part, vectors.shape[1])
            _upsert(store, list(passages.every()), vectors, progress.update)
            store.optimise()
            store.close()
            _publish(part, home)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return QdrantEdge(home)


def _publish(part: Path, home: Path) -> None:
    try:
        part.rename(home)
    except OSError:  # another process was first, and made the same
        if not home.is_dir():
            raise


def cache_folder() -> Path:
    """Where graphs are kept: `$NACRE_CACHE/vectors`, else `~/.cache/nacre/vectors`."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/nacre").expanduser() / "vectors"
