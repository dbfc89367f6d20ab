"""What an earlier index spares: files that are not read again, passages that are not embedded again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nacre.data.report import DropReport
from nacre.data.rows import digest64
from nacre.engine.protocol import Engine
from nacre.tiers.retrieval.embedding import BATCH, Embedder
from nacre.tiers.retrieval.index import VECTORS, IndexManifest, read_manifest
from nacre.tiers.retrieval.passages import Document, Passage, Passages
from nacre.tiers.retrieval.vectors import Vectors


@dataclass
class Earlier:
    """An index to carry over from."""

    passages: Passages
    manifest: IndexManifest
    vectors: Vectors | None
    files: dict[str, tuple[str, list[Document]]]  # file -> its digest and documents


def open_earlier(folder: Path | None, how: Mapping[str, Any], report: DropReport) -> Earlier | None:
    """The index in `folder`, when it was made as `how` says; else None, with a note in the report."""
    if folder is None:
        return None
    manifest = read_manifest(folder)
    if manifest.how != json.loads(json.dumps(how)):
        report.step("ingest").note("the earlier index was made with another config: everything is made anew")
        return None
    passages = Passages(folder)
    vectors = np.load(folder / VECTORS, mmap_mode="r") if (folder / VECTORS).is_file() else None
    files: dict[str, tuple[str, list[Document]]] = {}
    for document in passages.documents():
        files.setdefault(document.file, (document.digest, []))[1].append(document)
    return Earlier(passages, manifest, vectors, files)


class VectorWriter:
    """Vectors of passages as they are written, in bounded memory; those of an earlier index are carried over."""

    def __init__(self, out: Path, engine: Engine | None, earlier: Earlier | None) -> None:
        self.embedder = None if engine is None else Embedder(engine)
        self.kept = self.embedded = 0
        self._file = out / VECTORS
        self._raw = out / f".{VECTORS}.part"
        out.mkdir(parents=True, exist_ok=True)
        self._waiting: list[Passage] = []
        self._shape = (0, 0)
        self._known = _carried(earlier, self.embedder)
        self._sink = self._raw.open("wb") if self.embedder is not None else None

    def add(self, passage: Passage) -> None:
        """Takes a passage in; its vector is written at the latest when the block ends."""
        if self.embedder is None:
            return
        self._waiting.append(passage)
        if len(self._waiting) >= BATCH:
            self._write()

    def _write(self) -> None:
        if self.embedder is None or not self._waiting:
            return
        vectors = [self._known(one) for one in self._waiting]
        new = [one for one, vector in zip(self._waiting, vectors, strict=True) if vector is None]
        made = iter(self.embedder.embed([text_to_embed(one) for one in new]))
        rows = np.stack([next(made) if vector is None else vector for vector in vectors])
        self.kept, self.embedded = self.kept + len(vectors) - len(new), self.embedded + len(new)
        assert self._sink is not None
        self._sink.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
        self._shape = (self.kept + self.embedded, rows.shape[1])
        self._waiting = []

    def describe(self) -> dict[str, object] | None:
        """The engine, for the manifest."""
        if self.embedder is None or not self._shape[0]:
            return None
        engine = self.embedder.engine
        return {"name": engine.name, "identity": engine.identity, "dimensions": self._shape[1]}

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if self._sink is None:
            return
        try:
            if kind is None:
                self._write()
        finally:
            self._sink.close()
        if kind is None and self._shape[0]:
            rows = np.memmap(self._raw, dtype=np.float32, mode="r", shape=self._shape)
            np.save(self._file, rows)
            del rows
        self._raw.unlink()


def _carried(earlier: Earlier | None, embedder: Embedder | None) -> Callable[[Passage], Vectors | None]:
    """Finds the vector that the same words had, where the same engine made it."""
    if earlier is None or earlier.vectors is None or earlier.manifest.engine is None or embedder is None:
        return lambda passage: None
    if earlier.manifest.engine["identity"] != embedder.engine.identity:
        return lambda passage: None
    vectors = earlier.vectors
    rows = {_words(one): one.number - 1 for one in earlier.passages.every()}

    def known(passage: Passage) -> Vectors | None:
        row = rows.get(_words(passage))
        return None if row is None else np.asarray(vectors[row])

    return known


def text_to_embed(passage: Passage) -> str:
    """What stands for a passage when it is embedded: its title and headings, then its text."""
    head = passage.head
    return f"{head}\n{passage.chunk.text}" if head else passage.chunk.text


def _words(passage: Passage) -> int:
    return digest64(text_to_embed(passage))
