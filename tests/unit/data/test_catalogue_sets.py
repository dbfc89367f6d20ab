"""The data catalogue: names, places, checksums, references, downloads from a source on loopback."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from nacre.data import catalogue
from nacre.data.download import Upstream, download
from nacre.errors import DataError, IntegrityError, ReferenceNotFound
from nacre.lineage.store import Store

TEXT = b"first line\nsecond line\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of two sets, `cls-en-tiny` (converted) and `pretrain-en-raw` (downloadable), and a data folder."""
    rows = gzip.compress(b'{"text": "a", "label": "x"}\n', mtime=0)
    facts = {
        "task": "classification",
        "about": "two rows",
        "languages": ["en"],
        "licence": "CC BY-NC 4.0",
        "licence_class": "noncommercial",
    }
    tiny = facts | {"name": "cls-en-tiny", "aliases": ["tiny"], "source": "some/where:a.csv @0123456789ab"}
    raw = facts | {"name": "pretrain-en-raw", "aliases": ["raw"], "licence": "MIT", "licence_class": "open"}
    address = "owner/repo:texts/all lines.txt @0123456789ab"
    raw["source"] = address
    tiny["files"] = [_fact("train.jsonl.gz", rows), _fact("test.jsonl.gz", rows), _fact("more/extra.txt", TEXT)]
    raw["files"] = [
        _fact("train.txt", TEXT[:11]) | {"upstream": address, "first_byte": 0},
        _fact("valid.txt", TEXT[11:]) | {"upstream": address, "first_byte": 11},
    ]
    facts_folder = tmp_path / "facts"
    (facts_folder / "catalogue").mkdir(parents=True)
    (facts_folder / "catalogue/sets.json").write_text(json.dumps({"sets": [tiny, raw]}))
    data = tmp_path / "data"
    (data / "cls-en-tiny/more").mkdir(parents=True)
    (data / "cls-en-tiny/train.jsonl.gz").write_bytes(rows)
    (data / "cls-en-tiny/test.jsonl.gz").write_bytes(rows)
    (data / "cls-en-tiny/more/extra.txt").write_bytes(TEXT)
    monkeypatch.setattr(catalogue, "HERE", facts_folder)
    monkeypatch.setenv("NACRE_DATA", str(data))
    monkeypatch.chdir(facts_folder)
    catalogue._catalogue.cache_clear()
    yield data
    catalogue._catalogue.cache_clear()


def _fact(path: str, content: bytes) -> dict[str, object]:
    return {"path": path, "rows": None, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


class _Source(BaseHTTPRequestHandler):
    def __init__(self, content: bytes, asked: list[str], *args: object) -> None:
        self.content, self.asked = content, asked
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    asked: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), partial(_Source, getattr(request, "param", TEXT), asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NACRE_GITHUB_RAW", f"http://127.0.0.1:{server.server_port}/")
    yield asked
    server.shutdown()
    server.server_close()


def test_a_set_is_found_by_name_and_alias(place: Path) -> None:
    for name in ("cls-en-tiny", "tiny"):
        found = catalogue.find(name)
        assert found.path == place / "cls-en-tiny"
        assert found.remark is not None
        assert "non-commercial" in found.remark
    assert catalogue.found() == {"cls-en-tiny": place / "cls-en-tiny"}


def test_an_unknown_name_gets_the_closest(place: Path) -> None:
    with pytest.raises(ReferenceNotFound) as caught:
        catalogue.find("tny")
    assert "'tiny'" in caught.value.remedy


def test_a_converted_set_that_is_absent_says_so(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("NACRE_DATA", str(empty))
    for call in (catalogue.find, catalogue.fetch):
        with pytest.raises(ReferenceNotFound) as caught:
            call("tiny")
        assert "some/where:a.csv" in caught.value.remedy
        assert "NACRE_DATA" in caught.value.remedy


def test_a_missing_file_of_a_set_is_named(place: Path) -> None:
    (place / "cls-en-tiny/test.jsonl.gz").unlink()
    with pytest.raises(ReferenceNotFound) as caught:
        catalogue.find("tiny")
    assert "test.jsonl.gz" in caught.value.remedy


def test_check_names_the_changed_file(place: Path) -> None:
    assert catalogue.check("tiny").path is not None
    path = place / "cls-en-tiny/test.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match=r"test\.jsonl\.gz"):
        catalogue.check("tiny")


def test_a_wrong_data_variable_is_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_DATA", str(place / "none"))
    with pytest.raises(DataError, match="NACRE_DATA"):
        catalogue.find("tiny")


def test_references_carry_licence_origin_and_digest(place: Path) -> None:
    store = Store(place / "store")
    for ref, path in {
        "tiny": "cls-en-tiny",
        "tiny/train": "cls-en-tiny/train.jsonl.gz",
        "cls-en-tiny/more": "cls-en-tiny/more",
        "tiny/more/extra": "cls-en-tiny/more/extra.txt",
    }.items():
        resolved = catalogue.resolve(ref)
        record = resolved.record
        assert resolved.path == place / path
        assert resolved.ref == f"data:{ref}"
        assert record is not None
        assert record.basis == "declared"
        assert record.licence == "CC BY-NC 4.0"
        assert record.extra["origin"] == "some/where:a.csv @0123456789ab"
        assert record.digest == store.digest(resolved)
        store.verify(resolved)
    (place / "cls-en-tiny/train.jsonl.gz").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=r"train\.jsonl\.gz"):
        store.verify(catalogue.resolve("tiny"))


def test_an_unknown_part_gets_the_closest(place: Path) -> None:
    with pytest.raises(ReferenceNotFound) as caught:
        catalogue.resolve("tiny/tran")
    assert "'train'" in caught.value.remedy


def test_get_downloads_and_verifies_into_the_cache(place: Path, source: list[str]) -> None:
    with pytest.raises(ReferenceNotFound) as caught:
        catalogue.find("raw")
    assert "nacre data get pretrain-en-raw" in caught.value.remedy
    found = catalogue.fetch("raw")
    assert found.path is not None
    assert (found.path / "train.txt").read_bytes() + (found.path / "valid.txt").read_bytes() == TEXT
    assert source == ["/owner/repo/0123456789ab/texts/all%20lines.txt"] * 2
    assert catalogue.check("raw").path == found.path
    catalogue.fetch("raw")
    assert len(source) == 2


@pytest.mark.parametrize("source", [b"other bytes of the same"], indirect=True)
def test_other_bytes_are_refused_and_leave_nothing(place: Path, source: list[str]) -> None:
    with pytest.raises(IntegrityError, match="SHA-256"):
        catalogue.fetch("raw")
    cache = catalogue._cache() / "pretrain-en-raw"
    assert not cache.exists() or not list(cache.iterdir())
    with pytest.raises(ReferenceNotFound):
        catalogue.find("raw")


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_GITHUB_RAW", "http://127.0.0.1:9")
    upstream = Upstream.parse("owner/repo:file.txt @0123456789ab")
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        download(upstream, tmp_path / "file.txt", 1, "0" * 64)
    assert "NACRE_DATA" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_source_address_is_an_error() -> None:
    with pytest.raises(DataError, match="no source address"):
        Upstream.parse("just words")


# --- the shipped catalogue


def test_shipped_facts_are_complete() -> None:
    sets = catalogue.entries()
    names = [one.name for one in sets] + [alias for one in sets for alias in one.aliases]
    assert len(names) == len(set(names)) > 80
    for one in sets:
        assert one.licence
        assert one.licence_class in ("open", *catalogue.REMARKS)
        assert one.source
        assert one.about
        assert one.embedded or one.files
        for file in one.files:
            assert len(file.sha256) == 64
            assert file.n_bytes > 0


def test_the_embedded_desk_needs_nothing() -> None:
    found = catalogue.find("desk")
    assert found.embedded
    assert found.path is not None
    resolved = catalogue.resolve("desk/utterances")
    assert resolved.path.name == "utterances.jsonl"
    assert resolved.record is not None
    assert resolved.record.licence == "Apache-2.0"


@pytest.mark.shared_data
def test_shared_sets_match_their_checksums(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_DATA", str(shared_data))
    found = catalogue.found()
    assert len(found) >= 40
    for name in ("banking77", "shakespeare", "weibo-ner", "tokenizers"):
        catalogue.check(name)
