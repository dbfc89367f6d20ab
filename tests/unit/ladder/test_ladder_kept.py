"""A kept result is read back as it was, damaged ones are refused, and sentences are said in either language."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ladder_results import answers_of, result_of, rows_of, rows_to_judge

from nacre.errors import IntegrityError
from nacre.ladder.kept import from_dict, in_language, read
from nacre.ladder.report import render
from nacre.ladder.result import LadderResult, Recommendation, Row


@pytest.fixture(scope="module")
def result() -> LadderResult:
    tests = rows_to_judge(60)
    made = result_of(rows_of(), tests, answers_of(tests))
    broken = Row(5, "pretrain:<b>", status="failed", reason="no memory", remedy="a smaller one")
    return replace(made, rows=(*made.rows, broken), notes=("a <remark>",))


def test_what_was_kept_is_read_back_whole(result: LadderResult, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result.to_dict()), encoding="utf-8")
    again = read(file)
    assert again.to_dict() == result.to_dict()
    assert render(again, {}) == render(result, {})


def test_fields_of_later_versions_are_passed_over(result: LadderResult) -> None:
    assert from_dict(result.to_dict() | {"later": 1}).to_dict() == result.to_dict()


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"[]", b"null", b"{", b'{"task": 1}', b"\xff\xfe", b"[" * 100_000,
        b'{"task": "t", "metric": "m", "kind": "k", "language": "en", "machine": {}, "rows": 3, "recommended": {}}',
    ],
)  # fmt: skip
def test_what_is_no_result_is_refused(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(damage)
    with pytest.raises(IntegrityError):
        read(file)


@pytest.mark.parametrize(
    "change",
    [
        {"score": "<script>"},
        {"score": float("nan")},
        {"tier": 99},
        {"status": "fine"},
        {"owns": {"data": 3}},
        {"owns": 3},
    ],
)
def test_a_row_that_does_not_fit_is_refused(result: LadderResult, change: dict[str, Any], tmp_path: Path) -> None:
    plain = result.to_dict()
    plain["rows"][0] |= change
    file = tmp_path / "result.json"
    file.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(IntegrityError):
        read(file)
    with pytest.raises(IntegrityError):
        read(tmp_path / "nowhere.json")


def test_sentences_are_said_in_the_other_language(result: LadderResult) -> None:
    chinese = in_language(result, "zh")
    assert "第" in chinese.recommended.headline
    assert chinese.recommended.name == result.recommended.name
    assert 'lang="zh-CN"' in render(chinese, {})
    assert in_language(result, "en") is result


def test_another_recommendation_than_the_kept_one_is_never_put_in_its_place(result: LadderResult) -> None:
    kept = replace(result, recommended=Recommendation(1, "relay", "Because.", (), "Because."))
    assert in_language(kept, "zh").recommended == kept.recommended
