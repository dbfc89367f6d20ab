"""Plain text: the file itself, in parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from nacre.data.report import Step
from nacre.tiers.retrieval.document import IngestConfig, Part, SourceFile
from nacre.tiers.retrieval.readers.decoded import paragraph_cut, pieces


def read_text(file: SourceFile, config: IngestConfig, tally: Step) -> Iterator[Part]:
    """Parts of a text file; its title is its name."""
    title = PurePosixPath(file.name).name.partition(".")[0]
    for start, text, last in pieces(file, config, tally, paragraph_cut):
        yield Part(file.name, text, start, title, last=last)
