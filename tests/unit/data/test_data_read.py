"""Readers: formats, encodings found and reported, places in errors, drops counted."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from nacre.data.read import ReadConfig, read, read_located
from nacre.data.report import DropReport
from nacre.errors import ConfigError, DataError

ROWS = [{"text": "退货要几天？", "label": "returns"}, {"text": "Where is my parcel?", "label": "delivery"}]


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def as_jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_table(separator: str) -> bytes:
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in ROWS)]
    return "\n".join(lines).replace(",", separator).encode()


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("suffix", "data"), [(".jsonl", as_jsonl(ROWS)), (".csv", as_table(",")), (".tsv", as_table("\t"))]
)
def test_every_text_format_gives_the_same_rows(tmp_path: Path, suffix: str, data: bytes, packed: str) -> None:
    assert list(read(put(tmp_path, f"rows{suffix}{packed}", data))) == ROWS


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_parquet_gives_the_same_rows(tmp_path: Path, packed: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "made.parquet")
    path = put(tmp_path, f"rows.parquet{packed}", (tmp_path / "made.parquet").read_bytes())
    assert list(read(path)) == ROWS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"rows\.parquet"):
        list(read(path))


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("lines", ["床前明月光", "疑是地上霜", "举头望明月"]),
        ("paragraphs", ["床前明月光\n疑是地上霜", "举头望明月"]),
        ("files", None),
    ],
)
def test_text_is_read_by_line_paragraph_or_file(tmp_path: Path, documents: str, expected: list[str] | None) -> None:
    text = "\n床前明月光\n疑是地上霜\n\n \n举头望明月\n"
    config = ReadConfig(documents=documents)  # type: ignore[arg-type]
    found = [row["text"] for row in read(put(tmp_path, "poem.txt", text.encode()), config)]
    assert found == (expected or [text.strip()]) or (documents == "files" and found[0].split() == text.split())


@pytest.mark.parametrize(
    ("codec", "noted"),
    [
        ("utf-8", None),
        ("utf-8-sig", "utf-8 with byte order mark"),
        ("utf-16", "utf-16-le with byte order mark"),
        ("gb18030", "gb18030"),
        ("gbk", "gb18030"),
    ],
)
@pytest.mark.parametrize("text", ["你好，世界\n第二行", "联通", "繁體中文也能讀：開門見山\n", "㐂〇龘\n常用的字在这里"])
def test_encodings_are_found_and_reported(tmp_path: Path, codec: str, noted: str | None, text: str) -> None:
    try:
        data = text.encode(codec)
    except UnicodeEncodeError:
        pytest.skip("not in this encoding")
    if text == "联通" and noted == "gb18030":
        # The bytes of this word are valid UTF-8 as well: alone, nothing can tell; with any other word, the file can.
        data = (text + "很好").encode(codec)
        text += "很好"
    report = DropReport()
    found = [row["text"] for row in read(put(tmp_path, "a.txt", data), report=report)]
    assert found == text.splitlines()
    assert list(report.step("read").noted) == ([f"encoding {noted}"] if noted else [])


def test_an_encoding_decided_late_holds_from_the_first_line(tmp_path: Path) -> None:
    """The first lines of this GB18030 file are valid UTF-8; only the whole file tells."""
    data = ("联通\n" * 50_000 + "你好，世界\n").encode("gb18030")
    assert next(read(put(tmp_path, "a.txt", data)))["text"] == "联通"


@pytest.mark.parametrize("latin", ["caf\xe9 au lait\n", "J\xe9r\xf4me a vu la mer d\xe9cha\xeen\xe9e\n"])
def test_latin_1_is_not_taken_for_chinese(tmp_path: Path, latin: str) -> None:
    path = put(tmp_path, "a.txt", latin.encode("latin-1"))
    with pytest.raises(DataError, match="neither UTF-8 nor GB18030"):
        list(read(path))
    assert next(read(path, ReadConfig(encoding="latin-1")))["text"] == latin.strip()


def test_damaged_utf8_names_line_and_byte_and_can_be_dropped(tmp_path: Path) -> None:
    good = "这是一个很好的测试。\n".encode()
    path = put(tmp_path, "a.txt", good * 3 + b"\xe5\xa5 broken\n" + good)
    with pytest.raises(DataError, match=f"line 4, byte {3 * len(good):,}"):
        list(read(path))
    report = DropReport()
    assert len(list(read(path, ReadConfig(on_error="drop"), report))) == 4
    assert report.rows_dropped == 1


def test_damage_beyond_the_first_chunk_is_located(tmp_path: Path) -> None:
    good = "好的好的好的\n".encode() * 80_000  # more than one chunk of reading
    path = put(tmp_path, "a.txt", good + "好".encode()[:2] + b"\n")
    with pytest.raises(DataError, match=f"line 80,001, byte {len(good):,}"):
        list(read(path))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"', "malformed JSON"),
        ("[1, 2]", "not a JSON object: list"),
        ('{"text": NaN}', "NaN is not JSON"),
        ('{"text": "\\ud83d alone"}', "lone surrogate"),
        ("[" * 100_000, "malformed JSON"),
    ],
)
def test_bad_json_lines_name_their_place(tmp_path: Path, line: str, reason: str) -> None:
    first = '{"text": "好"}\n'
    path = put(tmp_path, "a.jsonl", (first + line + "\n" + first).encode())
    with pytest.raises(DataError, match=f"line 2, byte {len(first.encode())}: .*{reason}") as error:
        list(read(path))
    assert error.value.remedy
    report = DropReport()
    assert len(list(read(path, ReadConfig(on_error="drop"), report))) == 2
    assert report.rows_dropped == 1
    assert report.step("read").rows_in == 3


def test_an_escaped_emoji_and_a_line_separator_inside_a_string_are_text(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00"}\n{"text": "a\u2028b"}\n'.encode())
    assert [row["text"] for row in read(path)] == ["😀", "a\u2028b"]


@pytest.mark.parametrize("data", [b"", b"\n\n \n"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.txt.gz"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(DataError, match=r"empty|no rows"):
        list(read(put(tmp_path, name, data)))


def test_a_required_field_that_is_missing_names_the_closest(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", b'{"text": "a", "lable": "x"}\n')
    with pytest.raises(DataError, match=r"no field .label.*lable") as error:
        list(read(path, ReadConfig(required=("text", "label"))))
    assert "'lable'" in error.value.remedy


def test_csv_keeps_quoted_line_ends_and_says_where_a_record_begins(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", 'text,label\n"two\nlines",x\n"好",y,z\n'.encode())
    with pytest.raises(DataError, match="line 4, byte 25: wrong number of fields: 3"):
        list(read(path))
    rows = list(read_located(path, ReadConfig(on_error="drop")))
    assert [row["text"] for _, row in rows] == ["two\nlines"]
    assert rows[0][0].line == 2


def test_csv_faults_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="malformed CSV"):
        list(read(put(tmp_path, "a.csv", b'text\n"never closed\n')))
    with pytest.raises(DataError, match="empty or repeated name"):
        list(read(put(tmp_path, "b.csv", b"text,text\na,b\n")))
    assert list(read(put(tmp_path, "c.tsv", b'5" disk\tx\n'), ReadConfig(header=("text", "label")))) == [
        {"text": '5" disk', "label": "x"}
    ]
    assert csv.field_size_limit() >= 1 << 17


def test_a_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    data = gzip.compress(b'{"text": "a"}\n' * 10_000)
    (tmp_path / "a.jsonl.gz").write_bytes(data[:-30])
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        with pytest.raises(DataError, match=r"damaged or cut short|cannot be read"):
            list(read(tmp_path / name))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", b"x" * (3 << 20))
    with pytest.raises(DataError, match="longer than 1 MiB"):
        list(read(path, ReadConfig(max_row_mib=1)))
    path = put(tmp_path, "a.txt", b"x\n" * (1 << 20))
    with pytest.raises(DataError, match="a document is longer"):
        list(read(path, ReadConfig(max_row_mib=1, documents="files")))


def test_a_folder_is_read_in_order_and_other_files_are_noted(tmp_path: Path) -> None:
    put(tmp_path, "b.jsonl", as_jsonl(ROWS[:1]))
    put(tmp_path, "a.csv", as_table(","))
    put(tmp_path, "notes.rst", b"notes")
    put(tmp_path, "labels.json", b"[]")
    report = DropReport()
    assert list(read(tmp_path, report=report)) == ROWS + ROWS[:1]
    assert list(report.step("read").noted) == ["passed over: not a data file"]


def test_wrong_paths_and_formats_say_what_is_close(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", as_jsonl(ROWS))
    with pytest.raises(DataError) as error:
        list(read(tmp_path / "trian.jsonl"))
    assert "train.jsonl" in error.value.remedy
    for name, said in (("a.json", "JSON lines"), ("a.xlsx", ".parquet")):
        with pytest.raises(DataError) as error:
            list(read(put(tmp_path, name, b"{}")))
        assert said in error.value.remedy
    with pytest.raises(ConfigError, match="documents"):
        ReadConfig(documents="line")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="unknown encoding"):
        list(read(tmp_path / "train.jsonl", ReadConfig(encoding="utf-88")))


def test_an_array_in_a_json_file_is_read_where_the_file_is_named(tmp_path: Path) -> None:
    array = json.dumps([*ROWS, {"text": "🙂"}], ensure_ascii=False, indent=1).encode()
    path = put(tmp_path, "alpaca.json", array)
    assert list(read(path)) == [*ROWS, {"text": "🙂"}]
    located = [str(place) for place, _ in read_located(path)]
    assert located[1].endswith("alpaca.json, row 2")
    put(tmp_path, "rows.jsonl", as_jsonl(ROWS[:1]))
    assert list(read(tmp_path)) == ROWS[:1]
    for text, said in ((b"[1]", "not a JSON object"), (b"[{]", "is not JSON"), (b'[{"a": NaN}]', "NaN is not JSON")):
        with pytest.raises(DataError, match=said):
            list(read(put(tmp_path, "bad.json", text)))
    with pytest.raises(DataError, match="longer than 0 MiB"):
        list(read(path, ReadConfig(max_row_mib=0)))


@pytest.mark.parametrize("times", [1, 50])
def test_big5_is_told_and_not_read_as_gb18030(tmp_path: Path, times: int) -> None:
    """Every byte of this text is valid GB18030, as other characters."""
    text = "我的包裹在哪裡，請問什麼時候會到？" * times + "\n"
    path = put(tmp_path, "a.txt", text.encode("big5"))
    with pytest.raises(DataError, match="looks like Big5") as caught:
        list(read(path))
    assert "encoding: big5" in caught.value.remedy
    assert next(read(path, ReadConfig(encoding="big5")))["text"] == text.strip()
