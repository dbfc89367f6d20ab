"""BM25 over words and pairs of Chinese characters, exact and in memory: the yardstick of every ranking.

score(q, d) = sum over terms t of q, repeats counted, of idf(t) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * |d| / mean))
with idf(t) = ln(1 + (N - n + 1/2) / (n + 1/2)): Robertson et al. 1995 (Okapi at TREC-3, section 3) without their query
saturation (k3 infinite); the 1 in the logarithm keeps terms of most documents from counting against one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from nacre.data.normal import normal
from nacre.data.words import HAN
from nacre.data.write import write_json
from nacre.errors import CheckpointError, DataError

Floats = NDArray[np.float64]
_RUN = re.compile(f"[{HAN}]+|[^\\W_{HAN}]+")
_CHINESE = re.compile(f"[{HAN}]")
_TERMS, _ARRAYS = "bm25.json", "bm25.npz"


def terms_of(text: str) -> list[str]:
    """Words in lower case, and of a Chinese run every two neighbours (a run of one character is a term itself)."""
    found: list[str] = []
    for run in _RUN.findall(normal(text)):
        if _CHINESE.match(run) and len(run) > 1:
            found += [run[i : i + 2] for i in range(len(run) - 1)]
        else:
            found.append(run)
    return found


@dataclass(frozen=True)
class Bm25:
    """An index: ids (N,), terms (T,) in alphabetical order, and how often each document has each term (N, T)."""

    ids: tuple[str, ...]
    terms: tuple[str, ...]
    counts: csr_matrix
    k1: float = 1.2
    b: float = 0.75

    @classmethod
    def of(cls, corpus: Iterable[Mapping[str, str]]) -> Bm25:
        """The index of rows with `id` and `text`. Raises DataError where no text holds a word."""
        ids: list[str] = []
        counted: list[Counter[str]] = []
        for row in corpus:
            ids.append(row["id"])
            counted.append(Counter(terms_of(row["text"])))
        terms = tuple(sorted({term for counts in counted for term in counts}))
        if not terms:
            raise DataError(
                "the corpus holds no word", remedy="check the field of its texts: fields: {corpus_text: ...}"
            )
        return cls(tuple(ids), terms, _matrix(counted, {term: column for column, term in enumerate(terms)}))

    def tuned(self, k1: float, b: float) -> Bm25:
        """The same index with other parameters."""
        return replace(self, k1=k1, b=b)

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {term: column for column, term in enumerate(self.terms)}

    @cached_property
    def _weights(self) -> csc_matrix:
        """(T, N) what one mention of a term in the query adds to a document's score."""
        lengths = np.asarray(self.counts.sum(axis=1)).ravel()
        n_with = np.bincount(self.counts.indices, minlength=len(self.terms))
        idf = np.log1p((len(self.ids) - n_with + 0.5) / (n_with + 0.5))
        saturation = self.k1 * (1 - self.b + self.b * lengths / max(lengths.mean(), 1e-9))
        rows = np.repeat(np.arange(len(self.ids)), np.diff(self.counts.indptr))
        tf = self.counts.data
        values = idf[self.counts.indices] * tf * (self.k1 + 1) / (tf + saturation[rows])
        return csr_matrix((values, self.counts.indices, self.counts.indptr), shape=self.counts.shape).T.tocsr()

    def scores(self, queries: Sequence[str]) -> Floats:
        """(Q, N) scores; 0 where query and document share no term."""
        asked = _matrix([Counter(terms_of(query)) for query in queries], self._columns)
        return np.asarray((asked @ self._weights).toarray())

    def rank(self, queries: Sequence[str], depth: int) -> list[list[tuple[str, float]]]:
        """Per query the best `depth` ids that share a term with it, with scores; equals in the corpus's order."""
        ranked = []
        for begin in range(0, len(queries), _BATCH):
            for scores in self.scores(queries[begin : begin + _BATCH]):
                known = np.flatnonzero(scores)
                best = known[np.argsort(-scores[known], kind="stable")[:depth]]
                ranked.append([(self.ids[at], float(scores[at])) for at in best.tolist()])
        return ranked

    def save(self, folder: Path) -> None:
        """Writes `bm25.json` (ids, terms, parameters) and `bm25.npz` (counts)."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _TERMS, {"k1": self.k1, "b": self.b, "ids": self.ids, "terms": self.terms})
        arrays = {name: getattr(self.counts, name).astype(np.int32) for name in ("data", "indices", "indptr")}
        np.savez(folder / _ARRAYS, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Bm25:
        """Reads what `save` wrote; raises CheckpointError when it is missing or does not fit together."""
        try:
            plain = json.loads((folder / _TERMS).read_text(encoding="utf-8"))
            ids, terms = tuple(plain["ids"]), tuple(plain["terms"])
            with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
                parts = (arrays["data"].astype(np.float64), arrays["indices"], arrays["indptr"])
            return cls(ids, terms, csr_matrix(parts, shape=(len(ids), len(terms))), plain["k1"], plain["b"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise CheckpointError(f"{folder} holds no BM25 index: {error}", remedy="run the ladder again") from error


_BATCH = 64  # rows of (64, N) scores at a time


def _matrix(counted: Sequence[Counter[str]], columns: Mapping[str, int]) -> csr_matrix:
    """(rows, columns) counts of known terms."""
    values: list[int] = []
    indices: list[int] = []
    starts = [0]
    for counts in counted:
        known = sorted((columns[term], count) for term, count in counts.items() if term in columns)
        indices += [column for column, _ in known]
        values += [count for _, count in known]
        starts.append(len(indices))
    return csr_matrix((values, indices, starts), shape=(len(counted), len(columns)), dtype=np.float64)
