"""Laws of chunks: exact places, a budget kept, no character torn, nothing but white space left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.tiers.retrieval.chunk import Chunk, ChunkConfig, Measure, chunks_of, n_words
from nacre.tiers.retrieval.document import Part
from nacre.tiers.retrieval.graphemes import may_cut
from nacre.tiers.retrieval.readers.markdown import headings

_LINES = st.sampled_from(
    [
        "# Heading\n",
        "## 第二节\n",
        "A sentence. Another one! 一句话。还有一句？\n",
        "\n",
        "- item one\n",
        "1. 第一项\n",
        "| a | b |\n",
        "```\ncode here\n\nmore\n```\n",
        "👩\u200d👩\u200d👧🇩🇪🇨🇳 e\u0301\u0301 \u0e01\u0e33 각\r\n",
        "x" * 90 + "\n",
        "词" * 70,
        "，",
        " ",
        "\t",
        "word " * 30,
    ]
)
_TEXTS = st.one_of(st.lists(_LINES, max_size=30).map("".join), st.text(max_size=300))


@settings(max_examples=120, deadline=None)
@given(_TEXTS, st.integers(8, 60), st.integers(0, 4), st.integers(0, 1000), st.sampled_from([n_words, len]))
def test_chunks_are_exact_fit_and_cover(text: str, size: int, overlap: int, start: int, measure: Measure) -> None:
    part = Part("a.md", text, start, headings=headings(text, start))
    chunks = list(chunks_of(part, ChunkConfig(size=size, overlap=overlap), measure))
    covered = set[int]()
    for chunk in chunks:
        begin, end = chunk.start - start, chunk.end - start
        assert text[begin:end] == chunk.text
        assert chunk.text.strip()
        assert begin == 0 or text[begin - 1].isspace() or may_cut(text, begin)
        assert end == len(text) or text[end].isspace() or may_cut(text, end)
        assert measure(chunk.text) <= size or _one_character(chunk)
        covered.update(range(begin, end))
    assert all(place in covered for place, one in enumerate(text) if not one.isspace())
    assert [one.start for one in chunks] == sorted(one.start for one in chunks)


def _one_character(chunk: Chunk) -> bool:
    return not any(may_cut(chunk.text, at) for at in range(1, len(chunk.text)))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ae\u0301\u200d👩👧🏽🇩🇪🇨각\u11a8\u1161\u0e01\u0e33\r\n\u0928\u094d\u092e\ufe0f", max_size=20))
def test_no_cut_tears_what_unicode_holds_together(text: str) -> None:
    regex = pytest.importorskip("regex")
    ends = {found.end() for found in regex.finditer(r"\X", text)}
    torn = [at for at in range(1, len(text)) if may_cut(text, at) and at not in ends]
    assert torn == []
