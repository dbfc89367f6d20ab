from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from nacre.errors import DataError, IntegrityError
from nacre.lineage import digest as digests
from nacre.lineage.digest import digest_file, digest_folder, digest_path, hash_file, manifest
from nacre.lineage.hashes import FileHashes


def fill(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"one")
    (folder / "b" / "一.bin").write_bytes(b"two")
    return folder


def test_manifest_is_sorted_and_posix(tmp_path: Path) -> None:
    assert [(one.path, one.size) for one in manifest(fill(tmp_path / "x"))] == [("a.txt", 3), ("b/一.bin", 3)]


def test_record_and_logs_are_no_content_at_the_top_only(tmp_path: Path) -> None:
    folder = fill(tmp_path / "x")
    before = digest_folder(folder)
    (folder / "lineage.json").write_text("{}")
    (folder / "logs").mkdir()
    (folder / "logs" / "metrics.jsonl").write_text("{}")
    (folder / "empty").mkdir()
    assert digest_folder(folder) == before
    (folder / "b" / "lineage.json").write_text("{}")
    assert digest_folder(folder) != before


@pytest.mark.parametrize("name", ["a\nb", "a b", " ", "表.json", "-rf", "a\\b", 'q"'])
def test_odd_names_count(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path / "x")
    before = digest_folder(folder)
    (folder / name).write_bytes(b"")
    assert digest_folder(folder) != before


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = fill(tmp_path / "x")
    before = digest_folder(folder)
    descriptor = os.open(os.fsencode(folder) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY)
    os.close(descriptor)
    assert digest_folder(folder) != before


def test_a_boundary_cannot_be_moved_between_name_and_content(tmp_path: Path) -> None:
    """Two trees whose concatenated names and bytes agree have different digests."""
    for name, files in {"x": {"ab": b"c", "d": b""}, "y": {"a": b"bc", "d": b""}}.items():
        (tmp_path / name).mkdir()
        for path, data in files.items():
            (tmp_path / name / path).write_bytes(data)
    assert digest_folder(tmp_path / "x") != digest_folder(tmp_path / "y")


def test_links_stand_for_their_content_or_are_refused(tmp_path: Path) -> None:
    folder, linked = fill(tmp_path / "x"), tmp_path / "y"
    linked.mkdir()
    (linked / "a.txt").symlink_to(folder / "a.txt")
    (linked / "b").symlink_to(folder / "b")
    assert digest_folder(linked) == digest_folder(folder)
    with pytest.raises(DataError, match="symbolic link"):
        manifest(linked, links=False)


def test_dangling_links_cycles_and_pipes_are_errors(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    link = tmp_path / "x" / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="link to nothing"):
        digest_folder(tmp_path / "x")
    link.unlink()
    link.symlink_to(tmp_path / "x")
    with pytest.raises(DataError, match="contains it"):
        digest_folder(tmp_path / "x")
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        digest_folder(tmp_path / "x")


def test_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert digest_file(path) == digest_path(path) == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DataError, match="does not exist"):
        digest_file(tmp_path / "y")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    original = hashlib.file_digest

    def slow(file: object, name: str) -> object:
        found = original(file, name)  # type: ignore[arg-type]
        with path.open("ab") as more:
            more.write(b"d")
        return found

    monkeypatch.setattr(digests.hashlib, "file_digest", slow)
    with pytest.raises(IntegrityError, match="changed while"):
        hash_file(path)


def test_cached_hashes_notice_a_change_whose_times_were_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nacre.lineage.hashes._SMALLEST_BYTES", 1)
    monkeypatch.setattr("nacre.lineage.hashes._FRESH_S", -1.0)
    path, cache = tmp_path / "x", tmp_path / "cache.json"
    path.write_bytes(b"abc")
    times = path.stat()
    hashes = FileHashes(cache)
    first = hashes.hash_file(path)
    hashes.save()
    again = FileHashes(cache)
    monkeypatch.setattr("nacre.lineage.hashes.hash_file", lambda path: pytest.fail("read again"))
    assert again.hash_file(path) == first
    monkeypatch.undo()
    monkeypatch.setattr("nacre.lineage.hashes._SMALLEST_BYTES", 1)
    path.write_bytes(b"abd")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert again.hash_file(path) != first


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff"])
def test_a_broken_hash_cache_is_only_slower(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache.json").write_bytes(content)
    (tmp_path / "x").write_bytes(b"abc")
    assert FileHashes(tmp_path / "cache.json").hash_file(tmp_path / "x") == hash_file(tmp_path / "x")
