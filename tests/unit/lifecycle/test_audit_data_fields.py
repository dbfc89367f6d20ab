"""Stage 4 of chosen fields, with places on both sides, and of files as users bring them."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser
from pathlib import Path

import pytest

from nacre.cli import audit as command
from nacre.errors import NacreError, UsageError
from nacre.lifecycle.audit.data import compare
from nacre.lifecycle.audit.data.settings import DataSettings
from nacre.lifecycle.audit.data.texts import pick
from nacre.lifecycle.audit.messages_data import MESSAGES
from nacre.lifecycle.audit.said import is_whole
from nacre.lifecycle.audit.subject import Subject

Rows = list[dict[str, object]]


def _file(path: Path, rows: Rows, encoding: str = "utf-8") -> Subject:
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(encoding))
    return Subject(path.name, path, data=path)


def _articles(first: int, count: int, summary: str = "") -> Rows:
    return [
        {
            "document": f"article {n} tells at length of harbour {n * 7} and of its {n * 3} boats",
            "summary": summary or f"{n}",
        }
        for n in range(first, first + count)
    ]


def test_a_field_is_compared_alone() -> None:
    row = {"text": "a", "turns": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}
    assert pick(row, ()) == row
    assert list(pick(row, ("text", "absent")).values()) == ["a"]
    assert list(pick(row, ("turns.user",)).values()) == [[{"role": "user", "content": "b"}]]
    assert list(pick({"answers": [{"text": "x", "start": 1}]}, ("answers.text",)).values()) == [["x"]]


def test_fields_decide_what_is_the_same(tmp_path: Path) -> None:
    ours = _file(tmp_path / "a.jsonl", _articles(0, 40, "ours"))
    theirs = _file(tmp_path / "b.jsonl", _articles(0, 40, "theirs"))
    whole, documents = (compare(ours, theirs, DataSettings(fields)) for fields in ((), ("document",)))
    assert whole.verdict == "DERIVED"
    assert documents.verdict == "IDENTICAL"
    assert compare(ours, theirs, DataSettings(("summary",))).verdict == "NO_EVIDENCE"


def test_examples_have_lines_on_both_sides(tmp_path: Path) -> None:
    ours = _file(tmp_path / "a.jsonl", [{"document": ""}, *_articles(100, 30), *_articles(7, 1)])
    found = compare(ours, _file(tmp_path / "b.jsonl", _articles(0, 30)))
    [example] = found.detail["overlap"]["examples"]
    assert (example["subject"], example["reference"], example["how"]) == ("a.jsonl, line 32", "b.jsonl, line 8", "same")
    assert any("a.jsonl, line 32" in note and "b.jsonl, line 8" in note for note in found.notes)


def test_every_sentence_to_cite_is_said_in_chinese(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    _file(tmp_path / "one" / "train.jsonl", _articles(0, 30))
    _file(tmp_path / "two" / "train.jsonl", _articles(50, 30))
    _file(tmp_path / "two" / "test.jsonl", _articles(5, 10))
    one, two = (Subject(name, tmp_path / name, data=tmp_path / name) for name in ("one", "two"))
    found = compare(one, two)
    said = [found.text, *found.notes, *(each.text for each in found.evidence)]
    untranslated = [text for text in said if not is_whole(text, "zh")]
    assert [text for text in untranslated if not text.startswith("for example")] == []  # rows are quoted as they are
    assert any(
        "Of the 10 test rows of the reference, 10 stand in the training rows of the subject" in one for one in said
    )


def test_both_languages_name_the_same_values() -> None:
    placeholder = re.compile(r"\{[^}]*\}")
    wrong = [one for one, zh in MESSAGES.items() if sorted(placeholder.findall(one)) != sorted(placeholder.findall(zh))]
    assert wrong == []


def test_a_field_that_no_row_has_is_the_users_mistake(tmp_path: Path) -> None:
    ours, theirs = _file(tmp_path / "a.jsonl", _articles(0, 5)), _file(tmp_path / "b.jsonl", _articles(0, 5))
    with pytest.raises(UsageError, match=r"no row of a.jsonl has text in summry") as caught:
        compare(ours, theirs, DataSettings(("summry",)))
    assert "document, summary" in caught.value.remedy


def _run(*words: str) -> int:
    parser = ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([*words, "--stages", "data", "--no-record", "--quiet"]))


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"[1]\n", "not a JSON object"), (b'{"text": NaN}\n', "NaN")]
)
def test_a_subject_without_rows_ends_with_2(tmp_path: Path, content: bytes, said: str) -> None:
    good = _file(tmp_path / "good.jsonl", _articles(0, 5)).path
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(content)
    with pytest.raises(NacreError, match=said) as caught:
        _run(str(bad), "--against", str(good))
    assert caught.value.exit_code == 2


def test_files_as_users_bring_them(tmp_path: Path) -> None:
    chinese = [{"text": f"第{n}号码头的渡船每天早上准时开往对岸的小镇", "id": n // 2} for n in range(30)]
    gbk = _file(tmp_path / "gbk.jsonl", chinese, "gbk")
    utf8 = _file(tmp_path / "utf8.jsonl", chinese)
    found = compare(gbk, utf8)
    assert found.verdict == "IDENTICAL"
    assert any("gb18030" in note for note in found.notes)
    assert any("15 rows of the subject repeat the id" in note for note in found.notes)
    assert compare(_file(tmp_path / "one.jsonl", chinese[:1]), utf8).verdict == "INCONCLUSIVE"
    with (tmp_path / "gaps.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(
            [json.dumps({"text": row["text"]}) + "\n" for row in chinese] + ['{"text": NaN}\n', '{"label": 1}\n']
        )
    notes = compare(Subject("gaps", tmp_path / "gaps.jsonl", data=tmp_path / "gaps.jsonl"), utf8).notes
    assert "1 rows of the subject cannot be read and were left out" in notes
    assert "1 rows of the subject have no text in what is compared" in notes


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "fields", "valid", "test"),
    # Of the 14 test rows of the second set 13 are equal to the byte (11 texts), one but for its case.
    [("mt-en-zh-tldr", "en", (55, 34), (47, 25)), ("pii-en-synthetic", "text", (16, 9), (14, 12))],
)
def test_known_overlaps_of_sets_with_several_fields(
    shared_data: Path, capsys: pytest.CaptureFixture[str], name: str, fields: str,
    valid: tuple[int, int], test: tuple[int, int],
) -> None:  # fmt: skip
    """Rows, and different texts among them, of the set's own splits, by the command line."""
    folder = str(shared_data / name)
    assert _run(folder, "--against", folder, "--fields", fields, "--json") == 0
    told = json.loads(capsys.readouterr().out)["stages"]["data"]["detail"]["contamination"]
    found = {
        split: (one["same"], one["distinct"])
        for split in ("valid", "test")
        for key, one in told.items()
        if split in key
    }
    assert found == {"valid": valid, "test": test}
