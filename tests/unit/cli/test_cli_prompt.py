"""`nacre prompt`, as it is typed; and the page about prompts, whose every snippet is run here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from nacre.cli.main import main

PAGE = Path(__file__).parents[3] / "docs" / "prompts.md"
SORT = """---
name: sort
version: 1
about: Say what a letter is about.
inputs:
  letter: the letter
  topics: {about: what to choose from, type: list, default: [card, refund]}
---
# system
Answer with one of: {{ topics | join(", ") }}.
# user
{{ letter }}
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "sort.md").write_text(SORT, encoding="utf-8")
    (folder / "sort2.md").write_text(SORT.replace("version: 1", "version: 2").replace("one of", "any of"))
    return folder


def test_a_library_is_listed_and_searched(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompt", str(library)]) == 0
    assert "sort" in capsys.readouterr().out
    assert main(["prompt", "--search", "术语", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"][0]["name"] == "translate-zh"


def test_a_file_is_shown_and_rendered(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(library / "sort.md")
    assert main(["prompt", file]) == 0
    shown = capsys.readouterr().out
    assert "sort@1" in shown
    assert "required" in shown
    assert main(["prompt", file, "--render", "--input", "letter=a=b", "--input", 'topics=["x"]', "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rendered"] == [
        {"role": "system", "content": "Answer with one of: x."},
        {"role": "user", "content": "a=b"},
    ]
    assert main(["prompt", str(library), "--render", "sort@1", "--input", "letter=x"]) == 0
    assert "# user\nx" in capsys.readouterr().out


def test_two_versions_are_compared(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompt", str(library), "--diff", "sort@1", "sort@2"]) == 0
    assert "+Answer with any of" in capsys.readouterr().out
    assert main(["prompt", str(library), "--diff", "sort@1", "sort@1"]) == 0
    assert "are the same" in capsys.readouterr().out


def test_a_request_is_rewritten_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    for version in (1, 1):
        assert main(["prompt", str(folder), "--rewrite", "summarise it", "--save"]) == 0
        out = capsys.readouterr().out
        assert "rewritten by: rules" in out
        assert f"saved as summarise-it@{version}" in out
    assert [one.name for one in folder.iterdir()] == ["summarise-it@1.md"]


def test_an_engine_rewrites_where_one_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"name": "n", "about": "a", "role": "r", "context": "", "task": "t", "constraints": [], "output_format": ""}
    said |= {"examples": [], "inputs": {}, "questions": ["Why?"]}
    settings = {"engine": "echo", "answers": [["sum up", json.dumps(said)]]}
    (tmp_path / "engine.json").write_text(json.dumps(settings), encoding="utf-8")
    assert main(["prompt", "--rewrite", "sum up", "--engine", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "engine echo (echo)"
    assert found["questions"] == ["Why?"]
    assert main(["prompt", "--rewrite", "other words", "--engine", str(tmp_path)]) == 1
    assert "did not write a prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "no folder of prompts"),
        (["nowhere.md"], "does not exist"),
        (["--render", "sort-mail"], "no prompt 'sort-mail'"),
        (["--render", "translate-en", "--input", "txt=a"], "no input 'txt'"),
        (["--render", "translate-en", "--input", "text"], "no ="),
        (["--render", "translate-en", "--input", "text=a", "--input", "text=b"], "given twice"),
        (["--render", "translate-en"], "needs the input text"),
        (["--render", "classify-en", "--input", "text=a", "--input", "labels=a,b"], "is no list"),
        (["--input", "text=a"], "--input is for --render"),
        (["--save"], "are for --rewrite"),
        (["--rewrite", "x", "--save"], "library of your own"),
        (["--rewrite", " "], "the request is empty"),
        (["--search", "a", "--rewrite", "b"], "do not go together"),
        (["--diff", "answer-en@1", "answer-en@2"], "has no version 2"),
        (["--rewrite", "x", "--engine", "nobody"], "nobody"),
        (["--serch", "x"], "did you mean '--search'"),
    ],
)
def test_wrong_input_ends_with_2_and_a_remedy(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompt", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "remedy:" in error


def test_one_prompt_is_no_library(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompt", str(library / "sort.md"), "--search", "x"]) == 2
    assert "is one prompt" in capsys.readouterr().err


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_every_snippet_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    (files := blocks("markdown")) and (tmp_path / "prompts" / "sort-mail.md").write_text(files[0], encoding="utf-8")
    assert len(files) == 1
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("nacre prompt")]
    for line in commands:
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), {})
    assert len(commands) >= 5
    assert len(blocks("python")) >= 2
    assert capsys.readouterr().out


def test_the_recipe_of_the_page_can_be_planned(tmp_path: Path) -> None:
    from nacre.recipe.config import build
    from nacre.recipe.yaml12 import loads
    from nacre.tiers.prompt.stages import PromptConfig

    for block in blocks("yaml"):
        assert build(PromptConfig, loads(block, "the page")["tiers"]["prompt"], "the page")
