"""The characters of a text file, streaming, in pieces that end where a text may be cut."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator

from nacre.data.encoding import Encoding, chunks, detect, named
from nacre.data.report import Step
from nacre.tiers.retrieval.document import IngestConfig, SourceFile

Cut = Callable[[str], int]


def pieces(file: SourceFile, config: IngestConfig, tally: Step, cut: Cut) -> Iterator[tuple[int, str, bool]]:
    """(characters before, text, whether it is the last) of a file, each at most `part_characters` long.

    `cut` says where a full piece ends. Line ends are kept as they are, so that offsets are those of the decoded file.
    Raises DataError, before the first piece, where the file is in no known encoding.
    """
    encoding = named(file.path, config.encoding) if config.encoding else detect(file.path)
    if encoding != Encoding("utf-8"):
        tally.note(f"encoding {encoding}", where=file.name)
    begin, kept = 0, ""
    for text in _characters(file, encoding):
        kept += text
        while len(kept) > config.part_characters:
            end = cut(kept[: config.part_characters])
            yield begin, kept[:end], False
            begin, kept = begin + end, kept[end:]
    yield begin, kept, True


def _characters(file: SourceFile, encoding: Encoding) -> Iterator[str]:
    decoder, skip = codecs.getincrementaldecoder(encoding.codec)(), encoding.skip
    for data in chunks(file.path):
        yield decoder.decode(data[skip:])
        skip = 0
    yield decoder.decode(b"", final=True)


def paragraph_cut(text: str) -> int:
    """After the last blank line of the second half, else after the last line, else sentence, else blank, else all."""
    half = len(text) // 2
    for mark in ("\n\n", "\r\n\r\n", "\n", "。", ". ", " "):
        at = text.rfind(mark, half)
        if at >= 0:
            return at + len(mark)
    from nacre.tiers.retrieval.graphemes import boundary

    return boundary(text, len(text) - 1) or len(text)
