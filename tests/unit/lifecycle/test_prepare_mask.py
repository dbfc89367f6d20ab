"""`data.prepare` with `mask`: nothing in the artifact shows a value, neither a row nor a sample of any step."""

from __future__ import annotations

from pathlib import Path

from nacre.data.read import read
from nacre.data.write import write_jsonl
from nacre.lifecycle.prepare.data import PrepareConfig, prepare
from nacre.recipe.config import build
from nacre.recipe.stage import Work

PHONE, ID = "13800138000", "11010519491231002X"


def test_neither_rows_nor_samples_show_what_was_masked(tmp_path: Path) -> None:
    rows = [{"text": f"第{n}位  客户，手机{PHONE}，证件{ID}\u200b 。"} for n in range(30)]
    write_jsonl(tmp_path / "a.jsonl", [*rows, rows[0], {"text": ["no text", PHONE]}])
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    config = build(
        PrepareConfig,
        {"mask": {}, "task": "text", "split": {"ratios": {"train": 1.0}}, "read": {"on_error": "drop"}},
        "test",
    )
    prepare(config, Work(inputs={"source": tmp_path / "a.jsonl"}, out=out, scratch=scratch))
    texts = [row["text"] for row in read(out / "train.jsonl")]
    assert len(texts) == 30
    assert all("手机<PHONE>，证件<ID>" in text for text in texts)
    for file in out.iterdir():
        written = file.read_text(encoding="utf-8")
        assert PHONE not in written
        assert ID not in written
