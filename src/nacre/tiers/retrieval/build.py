"""Building an index, anew or from an earlier one: what did not change is neither read nor embedded again.

A file whose bytes are the same keeps its documents as they are; a passage whose words are the same keeps its vector;
what has vanished is not carried over. The new index is a folder of its own: the earlier one is only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from nacre.data.report import DropReport
from nacre.engine.protocol import Engine
from nacre.errors import ConfigError
from nacre.lineage.digest import hash_file
from nacre.progress import Progress, Silent
from nacre.tiers.retrieval.carrying import Earlier, VectorWriter, open_earlier
from nacre.tiers.retrieval.chunk import Chunk, ChunkConfig, Measure, chunks_of, n_words
from nacre.tiers.retrieval.document import IngestConfig, Part, SourceFile
from nacre.tiers.retrieval.embedding import Embedder
from nacre.tiers.retrieval.index import IndexManifest, write_manifest
from nacre.tiers.retrieval.ingest import parts_of, refuse_nothing, source_files
from nacre.tiers.retrieval.passages import Document, Passage, PassageWriter


@dataclass(frozen=True)
class BuildConfig:
    """How documents become an index."""

    ingest: IngestConfig = field(default_factory=IngestConfig)
    chunk: ChunkConfig = field(default_factory=ChunkConfig)


@dataclass
class Built:
    """What building did. `kept` and `embedded` count passages whose vector was carried over, or made."""

    manifest: IndexManifest
    report: DropReport
    kept: int = 0
    embedded: int = 0
    unchanged: int = 0  # files that were not read again
    vanished: int = 0  # documents of the earlier index that are gone
    embedder: Embedder | None = None


def build_index(
    source: Path,
    out: Path,
    config: BuildConfig | None = None,
    engine: Engine | None = None,
    measure: Measure | None = None,
    previous: Path | None = None,
    progress: Progress | None = None,
) -> Built:
    """An index of the documents below `source`, in the folder `out`.

    `measure` counts tokens where the chunks' unit asks for them. `previous`: an earlier index, made with the same
    config, to carry over from; one made otherwise is passed over with a note in the report.
    """
    config, progress = config or BuildConfig(), progress or Silent()
    report = DropReport()
    chunking, measure = _chunking(config.chunk, measure)
    how = {**asdict(config), "chunk": chunking}
    earlier = open_earlier(previous, how, report)
    files = source_files(source, config.ingest, report)
    vectors = VectorWriter(out, engine, earlier)
    built = Built(IndexManifest(0, 0, {}), report, embedder=vectors.embedder)
    sources: set[str] = set()
    with PassageWriter(out) as writer, vectors:
        for number, file in enumerate(files, 1):
            for document, parts in _documents(file, config, report, earlier, built):
                sources.add(document.source)
                writer.document(document)
                for passage in _passages(parts, writer, config.chunk, measure):
                    vectors.add(passage)
            progress.update(number, len(files), passages=writer.n_chunks)
    if not built.unchanged:
        refuse_nothing(source, report)
    built.kept, built.embedded = vectors.kept, vectors.embedded
    built.vanished = sum(one.source not in sources for one in earlier.passages.documents()) if earlier else 0
    _finish(built, out, writer, how, vectors)
    return built


def _chunking(config: ChunkConfig, measure: Measure | None) -> tuple[dict[str, object], Measure]:
    """The config with its unit resolved, and the function that counts it."""
    unit = ("tokens" if measure else "words") if config.unit == "auto" else config.unit
    if unit == "tokens" and measure is None:
        raise ConfigError("chunks are counted in tokens, and the engine has no tokenizer here", remedy="unit: words")
    counted: Measure = {"tokens": measure or n_words, "words": n_words, "characters": len}[unit]
    return {**asdict(config), "unit": unit}, counted


Found = Iterator[tuple[Document, Iterable[Part] | list[Passage]]]


def _documents(
    file: SourceFile, config: BuildConfig, report: DropReport, earlier: Earlier | None, built: Built
) -> Found:
    """The documents of a file: as they were, where its bytes are; else read."""
    _, digest = hash_file(file.path)
    known = earlier.files.get(file.name) if earlier else None
    if earlier is not None and known is not None and known[0] == digest:
        built.unchanged += 1
        report.step("ingest").note("unchanged files: carried over")
        for document in known[1]:
            yield document, earlier.passages.of_document(document.source)
        return
    for source, parts in groupby(parts_of(file, config.ingest, report), key=lambda part: part.source):
        whole = iter(parts)
        first = next(whole)
        yield Document(source, file.name, digest, first.title, first.fields), chain([first], whole)


def _passages(
    parts: Iterable[Part] | list[Passage], writer: PassageWriter, config: ChunkConfig, measure: Measure
) -> Iterator[Passage]:
    for part in parts:
        for chunk in [part.chunk] if isinstance(part, Passage) else chunks_of(part, config, measure):
            yield writer.chunk(chunk)


def build_rows(
    rows: Iterable[tuple[str, str, Mapping[str, Any]]],
    out: Path,
    engine: Engine | None = None,
    chunk: ChunkConfig | None = None,
    measure: Measure | None = None,
) -> Built:
    """An index of rows (id, text, fields): a document each, cut as `chunk` says, else kept whole."""
    chunking, counted = _chunking(chunk, measure) if chunk else ({}, n_words)
    vectors = VectorWriter(out, engine, None)
    built = Built(IndexManifest(0, 0, {}), DropReport(), embedder=vectors.embedder)
    with PassageWriter(out) as writer, vectors:
        for name, text, fields in rows:
            writer.document(Document(name, "", "", "", fields))
            whole = [Chunk(name, 0, len(text), text)]
            for one in chunks_of(Part(name, text), chunk, counted) if chunk else whole:
                vectors.add(writer.chunk(one))
    built.embedded = vectors.embedded
    _finish(built, out, writer, {"chunk": chunking}, vectors)
    return built


def _finish(built: Built, out: Path, writer: PassageWriter, how: Mapping[str, Any], vectors: VectorWriter) -> None:
    manifest = IndexManifest(writer.n_documents, writer.n_chunks, how, vectors.describe())
    if manifest.engine is not None:
        manifest = replace(manifest, mode="dense", why="no validation queries were given")
    built.manifest = manifest
    write_manifest(out, manifest)
