"""`nacre data`: lists, checks, and its exit codes."""

from __future__ import annotations

import json

import pytest

from nacre.cli.main import main
from nacre.cli.terminal import width


def test_list_is_aligned_and_says_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = lines[0]
    column = head.index("licence")
    assert "about" in head
    for line in lines[2 : lines.index("")]:
        assert width(line[:column]) == column
        assert line[column:].split()[0] in ("open", "noncommercial", "unclear", "mixed")
    assert any(line.startswith("desk ") and "embedded" in line for line in lines)
    assert any(line.startswith("model:minilm") for line in lines)


def test_list_by_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "intents", "--json"]) == 0
    names = [one["name"] for one in json.loads(capsys.readouterr().out)["sets"]]
    assert "cls-en-banking77" in names
    assert "desk" in names
    assert "pretrain-zh-poetry" not in names


def test_json_holds_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    bank = next(one for one in found["sets"] if one["name"] == "cls-en-banking77")
    assert bank["aliases"] == ["banking77"]
    assert bank["licence"] == "CC BY 4.0"
    assert not bank["downloadable"]
    assert {"train.jsonl.gz", "valid.jsonl.gz", "test.jsonl.gz"} <= {file["path"] for file in bank["files"]}
    assert found["models"][0]["name"] == "minilm"


def test_get_and_check_of_the_embedded_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get", "desk"]) == 0
    assert "desk is here" in capsys.readouterr().out
    assert main(["data", "check", "support-desk", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sets"][0]["embedded"] is True


@pytest.mark.shared_data
def test_check_of_a_shared_set_shows_its_remark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "sst2"]) == 0
    out = capsys.readouterr().out
    assert "cls-en-sst2 matches its checksums" in out
    assert "note:" in out


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["data", "get"], "nacre data list"),
        (["data", "get", "bankin77"], "banking77"),
        (["data", "check", "model:minilm"], "nacre data get model:minilm"),
        (["data", "check", "model:mini"], "minilm"),
        (["data", "lits"], "did you mean 'list'"),
        (["data"], "nacre data --help"),
    ],
)
def test_mistakes_exit_with_2_and_a_remedy(words: list[str], remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert remedy in captured.err
