"""Laws of the data layer, over inputs that nobody would think of."""

from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nacre.data.clean import DOCUMENT_EDITS, EDITS, CleanConfig, clean
from nacre.data.decontaminate import DecontaminateConfig, TestIndex, decontaminate
from nacre.data.dedup import DedupConfig, dedup, find_clusters
from nacre.data.ngrams import rolling, rolling_each, units_of
from nacre.data.normal import normal
from nacre.data.read import FORMATS, ReadConfig, read
from nacre.data.report import DropReport
from nacre.data.rows import Row, canonical
from nacre.data.scrub import PATTERNS, find, mask
from nacre.data.split import SplitConfig, split
from nacre.data.write import write_jsonl
from nacre.errors import DataError

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Bytes that are nearly a file: pieces of the formats and of the encodings, in any order.
PIECES = [
    *(piece.encode() for piece in ('{"text": "好"}', "text,label", '"', ",", "\t", "\n", "\r\n", "\u2028", "[")),
    *(piece.encode() for piece in ("NaN", "联通", '{"a": NaN}')),
    *("你好，世界".encode(codec) for codec in ("utf-8", "gb18030", "utf-16", "utf-16-be")),
    b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"\0", b"\xe4\xbd", b"\x81", b'"\\ud800"', b"PAR1",
]  # fmt: skip
nearly = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=12).map(b"".join)
# Texts with what cleaning looks for, among anything.
SIGNS = [
    "<p>",
    "[[a|b]]",
    "{{x}}",
    "''",
    "**",
    "# ",
    "&amp;",
    "\u200b",
    "\u200d",
    "\n",
    "\n\n",
    "e\u0301",
    "首页",
    "© 2024",
    "好",
    "a",
    " ",
]
texts = st.lists(st.one_of(st.sampled_from(SIGNS), st.text(max_size=6)), max_size=20).map("".join)
words = st.lists(st.sampled_from(["退", "货", "快", "递", "card", "lost", "x"]), min_size=1, max_size=12).map(" ".join)


@quick
@given(
    suffix=st.sampled_from(sorted(FORMATS)),
    data=nearly,
    packed=st.booleans(),
    documents=st.sampled_from(["lines", "paragraphs", "files"]),
    on_error=st.sampled_from(["raise", "drop"]),
    encoding=st.sampled_from([None, None, "utf-8", "utf-16", "gb18030", "big5"]),
)
def test_any_bytes_give_rows_or_a_data_error(
    tmp_path: Path, suffix: str, data: bytes, packed: bool, documents: Any, on_error: Any, encoding: str | None
) -> None:
    path = tmp_path / f"fuzz{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(data) if packed else data)
    report = DropReport()
    try:
        rows = list(read(path, ReadConfig(documents=documents, on_error=on_error, encoding=encoding), report))
    except DataError:
        return
    step = report.step("read")
    assert step.rows_out == len(rows) > 0
    assert step.rows_in == step.rows_out + step.rows_dropped
    write_jsonl(tmp_path / "again.jsonl", rows)  # whatever was read can be written, and reads the same
    assert list(read(tmp_path / "again.jsonl")) == rows


@quick
@given(data=st.binary(max_size=40))
def test_any_bytes_as_gzip_or_parquet(tmp_path: Path, data: bytes) -> None:
    for name in ("a.txt.gz", "a.parquet", "a.parquet.gz"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError):
            list(read(tmp_path / name))


@quick
@given(
    lines=st.lists(
        st.text(st.characters(codec="gb18030", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1), min_size=1
    )
)
def test_text_in_any_unicode_encoding_is_read_as_it_is(tmp_path: Path, lines: list[str]) -> None:
    lines = [line for line in lines if line.strip()] or ["好"]
    for codec in ("utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "a.txt").write_bytes("\n".join(lines).encode(codec))
        assert [row["text"] for row in read(tmp_path / "a.txt")] == lines


@quick
@given(text=st.text())
def test_the_normal_form_is_idempotent(text: str) -> None:
    assert normal(normal(text)) == normal(text)


@quick
@given(text=texts)
def test_character_edits_are_idempotent_and_remove_nothing_visible(text: str) -> None:
    for name in ("nfc", "controls", "zero_width", "spaces"):
        once = EDITS[name](text)
        assert EDITS[name](once) == once
    visible = [c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] in "LNPS"]
    edited = EDITS["zero_width"](EDITS["controls"](EDITS["nfc"](text)))
    assert [c for c in edited if unicodedata.category(c)[0] in "LNPS"] == visible


@quick
@given(rows=st.lists(texts.map(lambda text: {"text": text}), max_size=12))
def test_every_row_is_kept_or_counted(rows: list[Row]) -> None:
    report = DropReport()
    config = CleanConfig(
        edits=DOCUMENT_EDITS, filters=("length", "repeated_parts", "repeated_ngrams", "quality"), min_characters=2
    )
    kept = list(clean(rows, config, report))
    kept = list(dedup(kept, DedupConfig("near"), report))
    kept = list(decontaminate(kept, TestIndex({"t": [{"text": "好"}]}, DecontaminateConfig()), report))
    for step in report.steps.values():
        assert step.rows_in == step.rows_out + step.rows_dropped
    assert report.rows_in == len(rows)
    assert report.rows_out == len(kept)
    json.dumps(report.to_dict())


@quick
@given(rows=st.lists(words.map(lambda text: {"text": text}), max_size=25), seed=st.randoms(use_true_random=False))
@pytest.mark.parametrize("method", ["exact", "near"])
def test_survivors_and_clusters_do_not_depend_on_the_order(method: Any, rows: list[Row], seed: Any) -> None:
    config = DedupConfig(method, threshold=0.5, shingle=2)

    def outcome(rows: list[Row]) -> tuple[list[str], list[tuple[str, str]]]:
        kept = sorted(map(canonical, dedup(rows, config, DropReport())))
        return kept, sorted(zip(map(canonical, rows), find_clusters(rows, config).keys(), strict=True))

    before = outcome(rows)
    shuffled = list(rows)
    seed.shuffle(shuffled)
    assert outcome(shuffled) == before


@quick
@given(old=st.lists(words, max_size=20), new=st.lists(words, max_size=20))
def test_new_rows_move_no_old_row(old: list[str], new: list[str]) -> None:
    config = SplitConfig({"train": 0.4, "valid": 0.3, "test": 0.3})
    before = {row["text"]: name for name, row in split(({"text": text} for text in old), config)}
    after = {row["text"]: name for name, row in split(({"text": text} for text in new + old), config)}
    assert before.items() <= after.items()


@quick
@given(text=st.text(), n=st.integers(1, 6))
def test_units_and_their_ngrams(text: str, n: int) -> None:
    units = units_of(text)
    grams = rolling(units.ids, n)
    assert len(grams) == max(0, len(units.ids) - n + 1)
    ids = [tuple(units.ids[i : i + n].tolist()) for i in range(len(grams))]
    assert len(set(grams.tolist())) == len(set(ids))
    for length, hashes in rolling_each(units.ids, (1, n, 9)):
        assert np.array_equal(hashes, rolling(units.ids, length))


@quick
@given(
    text=st.lists(
        st.one_of(
            st.sampled_from(["我是", "由", "OpenAI", "开发的", "通义千问", "I am ", "Qwen", ", created by ", "。"]),
            st.text(max_size=3),
        )
    ).map("".join)
)
def test_masking_leaves_nothing_to_find_but_generic_phrases(text: str) -> None:
    named = [name for name, pattern in PATTERNS.items() if not pattern.generic]
    assert find(mask(text, named), named) == []
