"""The passages of an index on disk: one SQLite file with documents, their fields, their chunks and the full text.

It is written once, in the order of the documents, and then only read: the same documents give the same bytes (with the
same version of SQLite). Readers in any number of processes open it read-only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.data.rows import digest64
from nacre.errors import CheckpointError
from nacre.tiers.retrieval import fulltext
from nacre.tiers.retrieval.chunk import Chunk, heading_path
from nacre.tiers.retrieval.vectors import Filters, values_of

FILE = "passages.sqlite"
_SCHEMA = """
CREATE TABLE documents (number INTEGER PRIMARY KEY, source TEXT UNIQUE, file TEXT, digest TEXT, title TEXT,
    fields TEXT);
CREATE TABLE fields (document INTEGER, name TEXT, value TEXT, PRIMARY KEY (name, value, document)) WITHOUT ROWID;
CREATE TABLE chunks (number INTEGER PRIMARY KEY, key INTEGER UNIQUE, document INTEGER, start INTEGER, end INTEGER,
    page INTEGER, headings TEXT, text TEXT);
CREATE INDEX chunks_document ON chunks (document);
"""
_COLUMNS = "c.number, c.key, d.source, d.title, d.fields, c.start, c.end, c.page, c.headings, c.text"


@dataclass(frozen=True)
class Document:
    """A document of an index: its source, the file it came from and that file's digest, title and fields."""

    source: str
    file: str
    digest: str
    title: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Passage:
    """A chunk with what is known of its document. `key` is the same as long as source, place, text and fields are."""

    number: int
    key: int
    source: str
    title: str
    fields: Mapping[str, Any]
    chunk: Chunk

    @property
    def head(self) -> str:
        """Title and headings, as one line."""
        return heading_path(self.title, self.chunk.headings)

    @property
    def filterable(self) -> dict[str, Any]:
        """The fields that filters see: those of the document, and its source."""
        return {**self.fields, "source": self.source}


def key_of(chunk: Chunk, fields: str) -> int:
    """63 bits that name a chunk: the same for the same source, place, text and fields (as JSON) of its document."""
    return digest64(f"{chunk.source}\0{chunk.start}\0{chunk.text}\0{fields}") >> 1


class PassageWriter:
    """Writes passages into a new file; use as a context manager, complete when it ends well."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / FILE
        self.n_documents = self.n_chunks = 0
        # No journal: what is cut short is thrown away whole, with its folder.
        self._database = sqlite3.connect(self.file, isolation_level=None)
        self._database.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA page_size=4096; {_SCHEMA}"
        )
        fulltext.create(self._database)
        self._database.execute("BEGIN")
        self._number = 0

    def document(self, document: Document) -> None:
        """Begins a document: the chunks that follow are its own."""
        self.n_documents += 1
        self._number, self._document = self.n_documents, document
        self._plain = plain = json.dumps(dict(document.fields), ensure_ascii=False, sort_keys=True, default=str)
        row = (self._number, document.source, document.file, document.digest, document.title, plain)
        self._database.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", row)
        pairs = {(name, value) for name, one in document.fields.items() for value in values_of(one)}
        pairs.add(("source", document.source))
        rows = [(self._number, name, value) for name, value in sorted(pairs)]
        self._database.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?, ?)", rows)

    def chunk(self, chunk: Chunk) -> Passage:
        """Adds a chunk of the document that was begun last."""
        self.n_chunks += 1
        document = self._document
        passage = Passage(
            self.n_chunks, key_of(chunk, self._plain), document.source, document.title, document.fields, chunk
        )
        headings = json.dumps(chunk.headings, ensure_ascii=False)
        row = (
            passage.number, passage.key, self._number, chunk.start, chunk.end, chunk.page, headings, chunk.text,
        )  # fmt: skip
        self._database.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        fulltext.add(self._database, [(passage.number, passage.head, chunk.text)])
        return passage

    def __enter__(self) -> PassageWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            if kind is None:
                fulltext.finish(self._database)
                self._database.execute("COMMIT")
                self._database.execute("VACUUM")
        finally:
            self._database.close()


class Passages:
    """The passages of an index, opened for reading."""

    def __init__(self, folder: Path) -> None:
        file = folder / FILE
        if not file.is_file():
            raise CheckpointError(f"{folder} holds no {FILE}", remedy="give an index made by retrieval.index")
        # Immutable: no lock and no side file is ever written beside an artifact.
        address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        self._database = sqlite3.connect(address, uri=True, check_same_thread=False)
        try:
            self.n_documents = self._count("documents")
            self.n_chunks = self._count("chunks")
        except sqlite3.DatabaseError as error:
            raise CheckpointError(f"{file} is damaged: {error}", remedy="build the index again") from error

    def _count(self, table: str) -> int:
        return int(self._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[tuple[int, float]]:
        """(number, BM25) of the best `k` passages, the best first."""
        condition, values = _condition(filters)
        return fulltext.search(self._database, query, k, condition, values)

    def numbered(self, numbers: Sequence[int]) -> list[Passage]:
        """The passages of these numbers, in their order."""
        return self._chosen("c.number", numbers)

    def keyed(self, keys: Sequence[int]) -> list[Passage]:
        """The passages of these keys, in their order; keys of no passage are left out."""
        return self._chosen("c.key", keys)

    def every(self) -> Iterator[Passage]:
        """All passages, in the order in which they were written."""
        for row in self._database.execute(f"SELECT {_COLUMNS} {_JOINED} ORDER BY c.number"):
            yield _passage(row)

    def documents(self) -> Iterator[Document]:
        """All documents, in order."""
        for row in self._database.execute("SELECT source, file, digest, title, fields FROM documents ORDER BY number"):
            source, file, digest, title, fields = row
            yield Document(source, file, digest, title, json.loads(fields))

    def of_document(self, source: str) -> list[Passage]:
        """The passages of one document, in order."""
        found = self._database.execute(f"SELECT {_COLUMNS} {_JOINED} WHERE d.source = ? ORDER BY c.number", (source,))
        return [_passage(row) for row in found]

    def field_names(self) -> list[str]:
        """What can be filtered by."""
        return [name for (name,) in self._database.execute("SELECT DISTINCT name FROM fields ORDER BY name")]

    def close(self) -> None:
        self._database.close()

    def _chosen(self, column: str, values: Sequence[int]) -> list[Passage]:
        found: dict[int, Passage] = {}
        for begin in range(0, len(values), 500):
            some = [int(one) for one in values[begin : begin + 500]]
            marks = ", ".join("?" * len(some))
            rows = self._database.execute(f"SELECT {_COLUMNS} {_JOINED} WHERE {column} IN ({marks})", some)
            passages = map(_passage, rows)
            found |= {(one.key if column == "c.key" else one.number): one for one in passages}
        return [found[int(one)] for one in values if int(one) in found]


_JOINED = "FROM chunks c JOIN documents d ON d.number = c.document"


def _passage(row: tuple[Any, ...]) -> Passage:
    number, key, source, title, fields, start, end, page, headings, text = row
    chunk = Chunk(source, start, end, text, tuple(json.loads(headings)), page)
    return Passage(number, key, source, title, json.loads(fields), chunk)


def _condition(filters: Filters | None) -> tuple[str, list[str]]:
    """Filters as SQL over the numbers of chunks: every field has one of its wanted values."""
    clauses, values = list[str](), list[str]()
    for name, wanted in (filters or {}).items():
        ones: Iterable[str] = [wanted] if isinstance(wanted, str) else wanted
        marks = ", ".join("?" for _ in ones)
        clauses.append(f"document IN (SELECT document FROM fields WHERE name = ? AND value IN ({marks}))")
        values += [name, *ones]
    if not clauses:
        return "", []
    # The plus keeps SQLite from asking the full text once per row that passes: it is asked once, and filtered.
    return f"+rowid IN (SELECT number FROM chunks WHERE {' AND '.join(clauses)})", values
