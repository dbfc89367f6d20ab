"""TF-IDF over word and character n-grams with a linear classifier: fitted by scikit-learn, kept as plain arrays.

The saved form is a vocabulary (JSON) and weights (npz): no pickle, readable without scikit-learn. Predicting repeats
scikit-learn's arithmetic from these arrays; a test holds both to the same answers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from nacre.data.rows import is_han
from nacre.data.write import write_json
from nacre.errors import CheckpointError, DataError

Floats = NDArray[np.float64]
Units = Literal["words", "characters", "both"]
Solver = Literal["svm", "logistic"]

_WORD = re.compile(r"\w+")
_WEIGHTS, _VOCABULARY = "weights.npz", "baseline.json"


@dataclass(frozen=True)
class Grams:
    """Which n-grams stand for a text: words 1..`word_n`, characters 1..`character_n` of words padded by blanks."""

    units: Units
    word_n: int = 2
    character_n: int = 5

    def of(self, text: str) -> Counter[str]:
        """Counts of the n-grams of one text, in lower case; word n-grams are joined by blanks and marked by `w:`."""
        found: Counter[str] = Counter()
        words = _WORD.findall(text.lower())
        if self.units in ("words", "both"):
            for n in range(1, self.word_n + 1):
                found.update("w:" + " ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        if self.units in ("characters", "both"):
            for word in words:
                # Chinese runs without blanks: padding marks where a clause begins and ends.
                padded = f" {word} "
                for n in range(1, self.character_n + 1):
                    found.update("c:" + padded[i : i + n] for i in range(len(padded) - n + 1))
        return found


def units_of(texts: Sequence[str]) -> Units:
    """Characters where nine letters of ten are Chinese; else words and characters together, the stronger yardstick."""
    letters = sum(character.isalnum() for text in texts for character in text)
    share = sum(character.isalnum() and is_han(character) for text in texts for character in text) / max(letters, 1)
    return "characters" if share > 0.9 else "both"


@dataclass(frozen=True)
class Space:
    """Columns of known n-grams in alphabetical order, and their inverse document frequencies (F,)."""

    grams: Grams
    vocabulary: tuple[str, ...]
    idf: Floats

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {gram: column for column, gram in enumerate(self.vocabulary)}

    def features(self, texts: Iterable[str]) -> csr_matrix:
        """Rows (N, F) of sublinear TF-IDF, scaled to length 1; n-grams that training lacked are left out."""
        return _scaled(_counted([self.grams.of(text) for text in texts], self._columns), self.idf)


@dataclass(frozen=True)
class Linear:
    """A fitted baseline: weights (K, F) and biases (K,) over a space of n-grams.

    K is the number of classes, or 1 where there are two: then a positive score means the second.
    """

    labels: tuple[str, ...]
    space: Space
    weights: Floats
    bias: Floats
    solver: Solver
    c: float

    def scores(self, texts: Sequence[str]) -> Floats:
        """(N, C) decision values per class; for `logistic` they are probabilities."""
        return self.decide(self.space.features(texts))

    def decide(self, features: csr_matrix) -> Floats:
        """`scores` of features (N, F) that are at hand."""
        raw = np.asarray(features @ self.weights.T) + self.bias
        if self.weights.shape[0] == 1:
            # The softmax of (-x/2, x/2) is the logistic function of x.
            raw = np.hstack([-raw, raw]) / (2 if self.solver == "logistic" else 1)
        return _softmax(raw) if self.solver == "logistic" else raw

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [self.labels[index] for index in self.scores(texts).argmax(axis=1)]

    def save(self, folder: Path) -> None:
        """Writes `baseline.json` and `weights.npz`."""
        plain = {"labels": self.labels, "grams": asdict(self.space.grams), "solver": self.solver, "c": self.c}
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.weights.astype(np.float32)
        np.savez(folder / _WEIGHTS, allow_pickle=False, idf=self.space.idf, weights=weights, bias=self.bias)
        write_json(folder / _VOCABULARY, {**plain, "vocabulary": self.space.vocabulary})

    @classmethod
    def load(cls, folder: Path) -> Linear:
        """Reads what `save` wrote; raises CheckpointError when it is missing or does not fit together."""
        try:
            plain: dict[str, Any] = json.loads((folder / _VOCABULARY).read_text(encoding="utf-8"))
            with np.load(folder / _WEIGHTS, allow_pickle=False) as arrays:
                idf, weights, bias = (arrays[name].astype(np.float64) for name in ("idf", "weights", "bias"))
            space = Space(Grams(**plain["grams"]), tuple(plain["vocabulary"]), idf)
            found = cls(tuple(plain["labels"]), space, weights, bias, plain["solver"], plain["c"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise CheckpointError(
                f"{folder} holds no baseline: {error}", remedy="give the artifact of the stage baseline.classify"
            ) from error
        if not len(idf) == weights.shape[1] == len(space.vocabulary):
            raise CheckpointError(
                f"{folder}: {len(space.vocabulary)} n-grams, but weights for {weights.shape[1]}",
                remedy="the files are of different runs; run the recipe again",
            )
        return found


def _counted(texts: Sequence[Counter[str]], columns: dict[str, int]) -> csr_matrix:
    """(N, F) sublinear counts, 1 + ln(count), of known n-grams."""
    values: list[int] = []
    indices: list[int] = []
    starts = [0]
    for counts in texts:
        known = [(columns[gram], count) for gram, count in counts.items() if gram in columns]
        indices += [column for column, _ in known]
        values += [count for _, count in known]
        starts.append(len(indices))
    sublinear = 1.0 + np.log(np.array(values, dtype=np.float64))
    matrix = csr_matrix((sublinear, indices, starts), shape=(len(texts), len(columns)), dtype=np.float64)
    matrix.sort_indices()
    return matrix


def _scaled(counts: csr_matrix, idf: Floats) -> csr_matrix:
    rows = counts.multiply(idf[None, :]).tocsr()
    length = np.sqrt(rows.multiply(rows).sum(axis=1)).A1
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return rows.multiply(inverse[:, None]).tocsr()


def _softmax(raw: Floats) -> Floats:
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Choice:
    """What fitting chose, and the validation figure of every candidate (empty without validation rows)."""

    model: Linear
    validation: dict[float, float]


@dataclass(frozen=True)
class Examples:
    """Texts and their labels."""

    texts: Sequence[str]
    labels: Sequence[str]


@dataclass(frozen=True)
class Search:
    """How to fit: solver, values of C to try, n-grams to keep, whether to fit once more with validation rows."""

    grams: Grams
    solver: Solver = "svm"
    candidates: tuple[float, ...] = (0.3, 1.0, 3.0)
    max_features: int = 50_000
    refit: bool = False
    seed: int = 0


Measure = Callable[[Sequence[str], Sequence[str]], float]


def accuracy(true: Sequence[str], predicted: Sequence[str]) -> float:
    """The share of labels that are right."""
    return sum(one == other for one, other in zip(true, predicted, strict=True)) / len(true)


def fit(train: Examples, valid: Examples, search: Search, measure: Measure = accuracy) -> Choice:
    """The candidate C with the best validation figure, the smallest among equals; without validation rows C = 1.

    Raises DataError when the training rows have one class only.
    """
    names = tuple(sorted(set(train.labels)))
    if len(names) < 2:
        raise DataError(
            f"every training row has the label {names[0] if names else 'none'!r}",
            remedy="give training data with at least two classes",
        )
    counted = [search.grams.of(text) for text in train.texts]
    fitting = _Fitting(counted, train.labels, names, search)
    if not valid.texts:
        return Choice(fitting.model(1.0), {})
    held_out = fitting.space.features(valid.texts)
    tried = {}
    for c in sorted(search.candidates):
        guesses = fitting.model(c).decide(held_out).argmax(axis=1)
        tried[c] = measure(valid.labels, [names[index] for index in guesses])
    best = max(tried, key=lambda c: (tried[c], -c))
    if search.refit:
        known = [at for at, label in enumerate(valid.labels) if label in set(names)]
        counted += [search.grams.of(valid.texts[at]) for at in known]
        fitting = _Fitting(counted, [*train.labels, *(valid.labels[at] for at in known)], names, search)
    return Choice(fitting.model(best), tried)


class _Fitting:
    """Training rows as features, made once for all candidates."""

    def __init__(
        self, counted: Sequence[Counter[str]], labels: Sequence[str], names: tuple[str, ...], search: Search
    ) -> None:
        self.search, self.names = search, names
        self.space, counts = _space_of(counted, search.grams, search.max_features)
        self.features = _scaled(counts, self.space.idf)
        number = {name: index for index, name in enumerate(names)}
        self.targets = np.array([number[label] for label in labels])

    def model(self, c: float) -> Linear:
        solver = self.search.solver
        fitted: Any = (
            LinearSVC(C=c, random_state=self.search.seed) if solver == "svm" else LogisticRegression(C=c, max_iter=1000)
        )
        fitted.fit(self.features, self.targets)
        # Single precision is what is stored: rounding here keeps a reloaded model's answers the same to the bit.
        weights = np.asarray(fitted.coef_, dtype=np.float32).astype(np.float64)
        return Linear(self.names, self.space, weights, np.asarray(fitted.intercept_, dtype=np.float64), solver, c)


def space_of(texts: Sequence[str], grams: Grams, max_features: int) -> Space:
    """The space of the n-grams that most of these texts hold. Raises DataError where they hold no word."""
    return _space_of([grams.of(text) for text in texts], grams, max_features)[0]


def _space_of(counted: Sequence[Counter[str]], grams: Grams, max_features: int) -> tuple[Space, csr_matrix]:
    """The space, and the counts (N, F) of the texts in it."""
    vocabulary = _vocabulary(counted, max_features)
    counts = _counted(counted, {gram: column for column, gram in enumerate(vocabulary)})
    idf = np.asarray(TfidfTransformer(norm=None).fit(counts).idf_, dtype=np.float64)
    return Space(grams, vocabulary, idf), counts


def _vocabulary(counted: Sequence[Counter[str]], most: int) -> tuple[str, ...]:
    """The n-grams that most texts hold, in alphabetical order: a column never depends on the data's order."""
    in_texts: Counter[str] = Counter(gram for counts in counted for gram in counts)
    if not in_texts:
        raise DataError("the training texts hold no word", remedy="check the field 'text' of the training rows")
    kept = sorted(in_texts, key=lambda gram: (-in_texts[gram], gram))[:most]
    return tuple(sorted(kept))
