"""Documents from files: every format, both languages, and everything that cannot be read is counted and listed."""

from __future__ import annotations

import gzip
import resource
from io import BytesIO
from pathlib import Path

import pytest

from nacre.data.report import DropReport
from nacre.errors import DataError
from nacre.tiers.retrieval.chunk import ChunkConfig, chunks_of
from nacre.tiers.retrieval.document import IngestConfig, Part
from nacre.tiers.retrieval.ingest import ingest


def _all(root: Path, report: DropReport | None = None, **config: object) -> list[Part]:
    return list(ingest(root, IngestConfig(**config), report))  # type: ignore[arg-type]


def _pdf(pages: list[str], password: str | None = None) -> bytes:
    """A PDF with a line of text on each page, written by hand, as pypdf writes no text."""
    from pypdf import PdfReader, PdfWriter

    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET" if text else ""
        font = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] {font} /Contents {5 + 2 * number} 0 R >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, places = "%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{one}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out.split('xref')[0])}\n%%EOF"
    if password is None:
        return out.encode("latin-1")
    writer = PdfWriter(clone_from=PdfReader(BytesIO(out.encode("latin-1"))))
    writer.encrypt(password, algorithm="RC4-128")
    sink = BytesIO()
    writer.write(sink)
    return sink.getvalue()


def test_text_and_markdown_offsets_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("first\r\n\r\nsecond 退款".encode())
    body = "---\r\ntitle: T\r\ntopic: x\r\n---\r\n\r\n# One\r\n\r\ntext\r\n\r\n## Two\r\n\r\nmore 内容\r\n"
    (tmp_path / "b.md").write_bytes(body.encode())
    for part in _all(tmp_path):
        whole = (tmp_path / part.source).read_bytes().decode()
        assert whole[part.start : part.start + len(part.text)] == part.text
        if part.source == "b.md":
            assert (part.title, part.fields["topic"]) == ("T", "x")
            assert [(one.level, one.title) for one in part.headings] == [(1, "One"), (2, "Two")]
            assert all(whole[one.start :].lstrip("# ").startswith(one.title) for one in part.headings)


def test_gb18030_is_found_and_noted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("退货以后，款项在五个工作日内退回到原来的账户。".encode("gb18030"))
    report = DropReport()
    (part,) = _all(tmp_path, report)
    assert part.text.startswith("退货以后")
    assert report.step("ingest").noted["encoding gb18030"].count == 1


def test_html_gives_text_headings_and_title(tmp_path: Path) -> None:
    page = (
        "<html><head><title>Help &amp; more</title><style>p{}</style></head><body><h1>Refunds</h1><p>Money comes\n"
        "back.</p><ul><li>one</li><li>two</li></ul><h2>Cards</h2><script>x()</script><p>退到卡上</p>"
        "<table><tr><td>a</td><td>b</td></tr></table></body></html>"
    )
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    (part,) = _all(tmp_path)
    assert part.title == "Help & more"
    assert "Money comes back." in part.text
    assert "- one\n- two" in part.text.replace("\n\n", "\n")
    assert "a | b" in part.text
    assert "x()" not in part.text
    assert [part.text[one.start :].startswith(one.title) for one in part.headings] == [True, True]


def test_html_in_the_encoding_that_it_names(tmp_path: Path) -> None:
    page = '<html><head><meta charset="gb2312"><title>退货</title></head><body><p>七天</p></body></html>'
    (tmp_path / "a.htm").write_bytes(page.encode("gb18030"))
    assert _all(tmp_path)[0].title == "退货"


def test_rows_are_documents_with_fields(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,topic\n7,hello,x\n8,你好,y\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"q": "why", "a": "so"}\n{broken\n', encoding="utf-8")
    report = DropReport()
    parts = _all(tmp_path, report)
    assert [(one.source, one.text) for one in parts] == [
        ("a.csv#7", "hello"),
        ("a.csv#8", "你好"),
        ("b.jsonl#1", "q: why\na: so"),
    ]
    assert parts[0].fields == {"id": "7", "topic": "x"}
    assert any(reason.startswith("row left out: malformed JSON") for reason in report.step("ingest").noted)


def test_pdf_pages_are_parts(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(_pdf(["first page", "", "third page"]))
    report = DropReport()
    parts = _all(tmp_path, report)
    assert [(one.page, one.text.strip()) for one in parts] == [(1, "first page"), (3, "third page")]
    assert parts[1].start >= parts[0].start + len(parts[0].text)
    assert report.step("ingest").noted["PDF page without text"].count == 1


def test_what_cannot_be_read_is_counted_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("fine", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.md").write_text(" \n\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 na\xefve \xff\xfe\xfa")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "locked.pdf").write_bytes(_pdf(["secret"], "word"))
    (tmp_path / "scanned.pdf").write_bytes(_pdf([""]))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"x" * 100_000)[:60])
    (tmp_path / "picture.png").write_bytes(b"x")
    report = DropReport()
    assert [one.source for one in _all(tmp_path, report)] == ["good.txt"]
    step = report.step("ingest")
    assert (step.rows_in, step.rows_out, step.rows_dropped) == (8, 1, 7)
    where = {sample["where"]: reason for reason, event in step.dropped.items() for sample in event.samples}
    assert where["empty.txt"] == "empty file"
    assert where["blank.md"] == "no text in it"
    assert "neither UTF-8 nor GB18030" in where["latin.txt"]
    assert where["broken.pdf"].startswith("a broken PDF")
    assert where["locked.pdf"] == "an encrypted PDF"
    assert where["scanned.pdf"].startswith("a PDF without text")
    assert "cannot be read past" in where["cut.txt.gz"]
    assert step.noted["passed over: not a document"].count == 1


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"none of the 1 files .*\(empty file: 1\)"):
        _all(tmp_path)
    with pytest.raises(DataError, match="holds no document"):
        _all(tmp_path, exclude=("*.txt",))
    with pytest.raises(DataError, match="no file or folder"):
        _all(tmp_path / "absent")


def test_a_long_document_is_read_in_parts(tmp_path: Path) -> None:
    paragraph = "A sentence about nothing at all. 一句没有内容的话。\n" * 40 + "\n"
    text = "# Top\n\n" + paragraph * 400 + "```\n" + "code\n\n" * 4000 + "```\n\nend\n"
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    parts = _all(tmp_path, part_characters=50_000)
    assert len(parts) > 10
    assert "".join(one.text for one in parts) == text
    assert max(len(one.text) for one in parts) <= 50_000
    assert [one.last for one in parts] == [False] * (len(parts) - 1) + [True]
    assert all([one.title for one in part.headings] == ["Top"] for part in parts)
    fenced = next(part for part in parts if "```\ncode" in part.text)
    assert fenced.text.startswith("```\ncode")  # a part ends before a fence that it cannot hold


def test_a_long_document_takes_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    with file.open("w", encoding="utf-8") as sink:
        for number in range(60_000):
            sink.write(f"Paragraph {number} says something, 说一点事情, and then ends.\n\n")
    size = file.stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chunks = sum(1 for part in ingest(file) for _ in chunks_of(part, ChunkConfig()))
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert chunks > 1000
    assert size > 3_500_000
    assert grown_mib < 120  # a part's worth, not the file's


def test_repeated_ids_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}\n', encoding="utf-8")
    assert [one.source for one in _all(tmp_path)] == ["a.jsonl#x", "a.jsonl#x.2"]
