"""Texts of the bank: the embedded desk, and shared data sets where a recipe asks for them."""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import islice
from pathlib import Path

import nacre.data as data_package
from nacre.data import catalogue
from nacre.data.read import ReadConfig, read

SETS = {"books": "pretrain-en-books", "poetry": "pretrain-zh-poetry", "novels": "pretrain-zh-novels"}
_CHARACTERS = 600_000  # of a corpus, both halves and the held-out texts together
_PIECE = 2_000  # characters of a document at most, so that long ones have parts in both halves


@cache
def pieces(corpus: str) -> tuple[str, ...]:
    """The texts of a corpus in order. DataError with where to get it when a shared set is not on this machine."""
    rows = _desk() if corpus == "desk" else _shared(SETS[corpus])
    found, size = [], 0
    for text in rows:
        for start in range(0, len(text), _PIECE):
            found.append(text[start : start + _PIECE])
            size += len(found[-1])
        if size > _CHARACTERS:
            break
    return tuple(found)


def half(corpus: str, which: int) -> list[str]:
    """A half of the corpus by content hash; a sixteenth of the whole is in neither."""
    return [text for text in pieces(corpus) if _bucket(text) != 0 and _bucket(text) % 2 == which]


def held_out(corpus: str) -> list[str]:
    """Texts that no model is trained on."""
    return [text for text in pieces(corpus) if _bucket(text) == 0]


def digest(corpus: str) -> str:
    """SHA-256 of the corpus."""
    return hashlib.sha256("\0".join(pieces(corpus)).encode()).hexdigest()


def _bucket(text: str) -> int:
    return hashlib.sha256(text.encode()).digest()[0] % 16


def _desk() -> list[str]:
    folder = Path(data_package.__file__).parent / "desk"
    pages = [page.read_text(encoding="utf-8") for page in sorted((folder / "kb").rglob("*.md"))]
    rows = [str(row["text"]) for row in read(folder / "utterances.jsonl")]
    joined = ["\n".join(rows[start : start + 8]) for start in range(0, len(rows), 8)]
    return [*joined, *pages]


def _shared(name: str) -> list[str]:
    path = catalogue.find(name).path
    assert path is not None
    train = next(one for one in sorted(path.iterdir()) if one.name.startswith("train."))
    return [str(row["text"]) for row in islice(read(train, ReadConfig()), 20_000)]
