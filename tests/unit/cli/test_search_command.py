"""`nacre search`: a folder is indexed once, then only what changed; hits say where they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nacre.cli.main import main


def test_a_folder_is_indexed_once_and_brought_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("---\ntopic: money\n---\n\n退款五天内到账。\n", encoding="utf-8")
    (docs / "b.txt").write_text("A parcel is late.", encoding="utf-8")
    (docs / "c.pdf").write_bytes(b"broken")
    assert main(["search", "docs", "退款", "--json"]) == 0
    out, err = capsys.readouterr()
    (hit,) = json.loads(out)["hits"]
    assert (docs / "a.md").read_text(encoding="utf-8")[hit["start"] : hit["end"]] == hit["text"]
    assert "note: indexing" in err
    assert "left out: c.pdf: a broken PDF" in err
    assert main(["search", "docs", "late", "--k", "1"]) == 0
    out, err = capsys.readouterr()
    assert "b.txt:0-17" in out
    assert err == ""
    (docs / "b.txt").unlink()
    assert main(["search", "docs", "late"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == "nothing found"
    assert "1 files unchanged, 1 documents vanished" in err
    assert main(["search", "docs", "款", "--filter", "topic=other"]) == 0
    assert capsys.readouterr().out.strip() == "nothing found"
    assert main(["search", "docs", "x", "--filter", "topik=1"]) == 2
    assert "did you mean 'topic'" in capsys.readouterr().err
    assert main(["search", "docs", "x", "--mode", "dense"]) == 2
