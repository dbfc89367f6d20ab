from __future__ import annotations

from pathlib import Path

import pytest

from nacre.data.read import read
from nacre.data.write import write_jsonl
from nacre.errors import DataError
from nacre.lifecycle.prepare.join import JoinConfig, join
from nacre.recipe.stage import Work


def work_on(folder: Path, **parts: dict[str, list[str]]) -> Work:
    """`parts`: input -> split -> texts."""
    for name, splits in parts.items():
        for split, texts in splits.items():
            write_jsonl(folder / name / f"{split}.jsonl", [{"text": text, "label": "x"} for text in texts])
    (folder / "out").mkdir()
    return Work({name: folder / name for name in parts}, folder / "out", folder / "scratch")


def test_a_text_that_one_input_tests_on_is_joined_from_none(tmp_path: Path) -> None:
    work = work_on(
        tmp_path,
        first={"train": ["退货要几天", "where is it"], "valid": ["ok"]},
        second={"train": ["second"], "test": ["退货要几天"]},
    )
    metrics = join(JoinConfig(), work)
    assert list(read(work.out / "train.jsonl")) == [{"text": "where is it"}, {"text": "second"}]
    assert metrics == {"train_rows": 2, "valid_rows": 1, "removed_test_texts": 1}
    assert not (work.out / "test.jsonl").exists()


def test_whole_rows_are_kept_on_request(tmp_path: Path) -> None:
    work = work_on(tmp_path, first={"train": ["a text"]})
    join(JoinConfig(keep_fields=True), work)
    assert list(read(work.out / "train.jsonl")) == [{"text": "a text", "label": "x"}]


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    work = work_on(tmp_path, first={"valid": ["a"]})
    with pytest.raises(DataError, match="no training text"):
        join(JoinConfig(), work)
