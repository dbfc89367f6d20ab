"""Taggers: a linear-chain CRF over character and word shapes (Lafferty et al. 2001), or the commonest tag per token.

The CRF is fitted by CRFsuite (L-BFGS with elastic net) and saved in its own format.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nacre.data.rows import is_han
from nacre.data.write import write_json
from nacre.errors import CheckpointError, TrainingError
from nacre.lazy import require
from nacre.lineage.digest import hash_file

_CRF, _MAJORITY = "crf.model", "majority.json"
_WINDOW = 2  # tokens on either side that a token's features look at

Tokens = Sequence[str]


@dataclass(frozen=True)
class Tagged:
    """Sentences and their tags."""

    tokens: Sequence[Tokens]
    tags: Sequence[Tokens]


class Tagger(Protocol):
    """What a rung of the kind `tag` answers with."""

    def tag(self, tokens: Tokens) -> list[str]:
        """One tag per token."""
        ...

    def close(self) -> None: ...


def shape_of(token: str) -> str:
    """What a token looks like: `Aa` for Paris, `d` for 2026, `h` for a Chinese character; runs count once."""
    kinds = [_kind(character) for character in token]
    return "".join(kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind)


def _kind(character: str) -> str:
    if is_han(character) and character.isalnum():
        return "h"
    category = unicodedata.category(character)
    if category == "Nd":
        return "d"
    if category[0] == "L":
        return "A" if category == "Lu" else "a"
    return character if character in "@#/:.-_" else "p"


def features_of(tokens: Tokens) -> list[list[str]]:
    """Per token: itself, its shape, its ends, those of its neighbours, and pairs of neighbours."""
    lower = [token.lower() for token in tokens]
    shapes = [shape_of(token) for token in tokens]
    return [_features(at, lower, shapes) for at in range(len(tokens))]


def _features(at: int, lower: Tokens, shapes: Tokens) -> list[str]:
    def near(values: Tokens, offset: int) -> str:
        place = at + offset
        return values[place] if 0 <= place < len(values) else "<s>" if place < 0 else "</s>"

    found = [f"{offset}={near(lower, offset)}" for offset in range(-_WINDOW, _WINDOW + 1)]
    found += [f"s{offset}={near(shapes, offset)}" for offset in (-1, 0, 1)]
    found += [f"{offset}|{near(lower, offset)}|{near(lower, offset + 1)}" for offset in range(-_WINDOW, _WINDOW)]
    found += [f"-1.1|{near(lower, -1)}|{near(lower, 1)}"]
    token = lower[at]
    if len(token) > 1:  # a word: Chinese comes by character
        found += [f"{side}{n}={part}" for n in (2, 3) for side, part in (("<", token[:n]), (">", token[-n:]))]
    return found


class Crf:
    """A fitted CRF, opened from its file."""

    def __init__(self, file: Path, sha256: str) -> None:
        # CRFsuite crashes the process on damaged bytes, so they are compared with what was written before it sees them.
        try:
            same = hash_file(file)[1] == sha256
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror}", remedy="run the ladder again") from error
        if not same:
            raise CheckpointError(f"{file} was changed after it was written", remedy="run the ladder again")
        self._tagger = require("pycrfsuite").Tagger()
        self._tagger.open(str(file))

    def tag(self, tokens: Tokens) -> list[str]:
        found: list[str] = self._tagger.tag(features_of(tokens)) if tokens else []
        return found

    @property
    def n_weights(self) -> int:
        """Weights that are not zero: of features and of transitions."""
        info = self._tagger.info()
        return len(info.state_features) + len(info.transitions)

    def close(self) -> None:
        self._tagger.close()


@dataclass(frozen=True)
class Regularisation:
    """Coefficients of L1 and L2."""

    c1: float
    c2: float


def fit_crf(rows: Tagged, how: Regularisation, iterations: int, file: Path) -> Crf:
    """A CRF fitted on rows and saved at `file`. Raises TrainingError where CRFsuite gives up."""
    trainer: Any = require("pycrfsuite").Trainer(verbose=False)
    for tokens, tags in zip(rows.tokens, rows.tags, strict=True):
        trainer.append(features_of(tokens), list(tags))
    trainer.select("lbfgs")
    # All transitions that tags allow, seen or not: an unseen one costs what its weight says, not everything.
    trainer.set_params({"c1": how.c1, "c2": how.c2, "max_iterations": iterations, "feature.possible_transitions": True})
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        trainer.train(str(file))
    except RuntimeError as error:
        raise TrainingError(f"the CRF could not be fitted: {error}", remedy="tag: {solver: majority}") from error
    logging.getLogger(__name__).debug("CRF fitted: %s", trainer.logparser.last_iteration)
    return Crf(file, hash_file(file)[1])


class Majority:
    """Each token's commonest tag in training; the commonest of all tags for tokens that training lacks."""

    def __init__(self, table: dict[str, str], otherwise: str) -> None:
        self._table, self._otherwise = table, otherwise

    @classmethod
    def of(cls, rows: Tagged) -> Majority:
        counts: dict[str, Counter[str]] = {}
        for token, tag in _pairs(rows):
            counts.setdefault(token, Counter())[tag] += 1
        table = {token: min(found, key=lambda tag: (-found[tag], tag)) for token, found in sorted(counts.items())}
        total = Counter(tag for _, tag in _pairs(rows))
        return cls(table, min(total, key=lambda tag: (-total[tag], tag)))

    def tag(self, tokens: Tokens) -> list[str]:
        return [self._table.get(token, self._otherwise) for token in tokens]

    @property
    def n_weights(self) -> int:
        """Tokens that have a tag of their own."""
        return len(self._table)

    def close(self) -> None:
        pass

    def save(self, folder: Path) -> None:
        write_json(folder / _MAJORITY, {"otherwise": self._otherwise, "table": self._table})

    @classmethod
    def load(cls, folder: Path) -> Majority:
        try:
            plain = json.loads((folder / _MAJORITY).read_text(encoding="utf-8"))
            return cls(plain["table"], plain["otherwise"])
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder} holds no tagger: {error}", remedy="run the ladder again") from error


def crf_file(folder: Path) -> Path:
    """Where a rung has its CRF."""
    return folder / _CRF


def _pairs(rows: Tagged) -> Iterable[tuple[str, str]]:
    for tokens, tags in zip(rows.tokens, rows.tags, strict=True):
        yield from zip(tokens, tags, strict=True)
