"""Writers: atomic, strict, the same bytes for the same rows."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nacre.data.read import read
from nacre.data.write import JsonlWriter, Spool, disk_errors, write_json, write_jsonl
from nacre.errors import DataError, ResourceError

ROWS = [{"text": "你好 😀"}, {"text": "a\u2028b\n", "n": 1}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_rows_come_back_and_bytes_are_the_same(tmp_path: Path, name: str) -> None:
    assert write_jsonl(tmp_path / name, ROWS) == 2
    assert list(read(tmp_path / name)) == ROWS
    first = (tmp_path / name).read_bytes()
    write_jsonl(tmp_path / name, iter(ROWS))
    assert (tmp_path / name).read_bytes() == first


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": b"bytes"}, {"x": "\ud800"}])
def test_a_row_that_is_no_json_leaves_the_old_file(tmp_path: Path, bad: dict[str, object]) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, ROWS)
    before = path.read_bytes()
    with pytest.raises(DataError, match="row 2"):
        write_jsonl(path, [{"text": "new"}, bad])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with JsonlWriter(tmp_path / "a.jsonl") as writer:
            writer.write({"text": "half"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no space left"), disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", {})


def test_a_spool_is_passed_over_again_and_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "rows.jsonl").fill(iter(ROWS))
    assert len(spool) == 2
    assert list(spool) == list(spool) == ROWS
