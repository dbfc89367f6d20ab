"""Writing without a model: the first sentence, the source itself, the commonest target, or the nearest source's one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from zipfile import BadZipFile

import numpy as np
from scipy.sparse import csr_matrix

from nacre.data.sentences import sentences
from nacre.data.write import write_json
from nacre.errors import CheckpointError
from nacre.tiers.baseline.baseline import Grams, Space, space_of, units_of

Name = Literal["lead", "copy", "frequent", "memory"]
_FILE, _ARRAYS = "writer.json", "writer.npz"


class Writer(Protocol):
    """What a rung of the kind `generate` answers with."""

    def write(self, sources: Sequence[str]) -> list[str]:
        """A text per source."""
        ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Pairs:
    """Sources and their targets."""

    sources: Sequence[str]
    targets: Sequence[str]


class Lead:
    """The first sentence: what a summary without a model is measured by."""

    def write(self, sources: Sequence[str]) -> list[str]:
        return [next(sentences(source), "") for source in sources]

    def save(self, folder: Path) -> None:
        write_json(folder / _FILE, {"writer": "lead"})


class Copy:
    """The source as it is."""

    def write(self, sources: Sequence[str]) -> list[str]:
        return list(sources)

    def save(self, folder: Path) -> None:
        write_json(folder / _FILE, {"writer": "copy"})


class Frequent:
    """The commonest target of training, whatever is asked."""

    def __init__(self, target: str) -> None:
        self.target = target

    @classmethod
    def of(cls, rows: Pairs) -> Frequent:
        counts = Counter(rows.targets)
        return cls(min(counts, key=lambda target: (-counts[target], target)))

    def write(self, sources: Sequence[str]) -> list[str]:
        return [self.target] * len(sources)

    def save(self, folder: Path) -> None:
        write_json(folder / _FILE, {"writer": "frequent", "target": self.target})


class Memory:
    """The target of the training source nearest by TF-IDF cosine: a translation memory."""

    def __init__(self, space: Space, features: csr_matrix, targets: Sequence[str]) -> None:
        self._space, self._features, self._targets = space, features, tuple(targets)

    @classmethod
    def of(cls, rows: Pairs, max_features: int) -> Memory:
        # Three characters say enough of a neighbour, and keep the memory small.
        space = space_of(rows.sources, Grams(units_of(rows.sources), word_n=2, character_n=3), max_features)
        # Single precision is what is stored: a reloaded memory finds the same neighbours.
        features = space.features(rows.sources).astype(np.float32)
        return cls(space, features, rows.targets)

    def write(self, sources: Sequence[str]) -> list[str]:
        found: list[str] = []
        for begin in range(0, len(sources), 256):
            asked = self._space.features(sources[begin : begin + 256]).astype(np.float32)
            nearest = np.asarray((asked @ self._features.T).toarray()).argmax(axis=1)
            found += [self._targets[at] for at in nearest.tolist()]
        return found

    def save(self, folder: Path) -> None:
        plain = {"writer": "memory", "grams": asdict(self._space.grams), "targets": self._targets}
        write_json(folder / _FILE, {**plain, "vocabulary": self._space.vocabulary})
        parts = {name: getattr(self._features, name) for name in ("data", "indices", "indptr")}
        np.savez(folder / _ARRAYS, allow_pickle=False, idf=self._space.idf, **parts)

    @classmethod
    def load(cls, folder: Path, plain: Mapping[str, Any]) -> Memory:
        targets, vocabulary = tuple(plain["targets"]), tuple(plain["vocabulary"])
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            parts = (arrays["data"], arrays["indices"], arrays["indptr"])
            features, idf = csr_matrix(parts, shape=(len(targets), len(vocabulary))), arrays["idf"]
        return cls(Space(Grams(**plain["grams"]), vocabulary, idf), features, targets)


# Writers that nothing is fitted for.
_PLAIN: Mapping[str, type[Lead] | type[Copy]] = {"lead": Lead, "copy": Copy}


def fit_writer(name: Name, rows: Pairs, max_features: int) -> Writer:
    """The writer of this name, fitted on rows."""
    if name == "memory":
        return Memory.of(rows, max_features)
    if name == "frequent":
        return Frequent.of(rows)
    return _PLAIN[name]()


def load_writer(folder: Path) -> Writer:
    """The writer that a folder holds; raises CheckpointError where it is missing or damaged."""
    try:
        plain = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if plain["writer"] == "memory":
            return Memory.load(folder, plain)
        if plain["writer"] == "frequent":
            return Frequent(str(plain["target"]))
        return _PLAIN[plain["writer"]]()
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise CheckpointError(f"{folder} holds no writer: {error}", remedy="run the ladder again") from error
