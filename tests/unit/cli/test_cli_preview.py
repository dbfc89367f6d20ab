"""`nacre preview`: what is trained, token by token, readable with and without colour, in both languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_kit import CALLING, CHATS, TOOLS, assistant, tokenizer, user

from nacre.cli.main import main
from nacre.data.chat.template import ChatTemplate
from nacre.train.objectives.config_align import SftConfig
from nacre.train.objectives.sft import TAUGHT, TOKENS, Sft

PAIR = {"prompt": "包裹在哪？", "chosen": "已经发货了。", "rejected": "不知道。"}


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    tokenizer().save(tmp_path / "vocabulary")
    return tmp_path / "vocabulary"


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def talks(tmp_path: Path) -> str:
    rows = [{"messages": messages} for messages in CHATS.values()]
    return written(tmp_path / "talks.jsonl", [*rows, {"messages": CALLING, "tools": TOOLS}])


def preview(*words: str) -> int:
    return main(["preview", *words, "--template", "chatml", "--add-tokens"])


def test_trained_tokens_stand_between_marks(talks: str, vocabulary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview(talks, "--tokenizer", str(vocabulary), "--row", "2") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    shown = "".join(out[out.index("trained (") :].splitlines()[1:]).replace("|", "")
    assert shown.endswith("<im_start>assistant⏎«已经发货了。<im_end>»⏎")
    assert "«" not in shown[: shown.index("assistant")]
    assert "   1  user                8  我的包裹在哪里？" in out


def test_colours_on_a_terminal_change_no_text(
    talks: str, vocabulary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import re
    import sys

    words = [talks, "--tokenizer", str(vocabulary), "--row", "4"]
    assert preview(*words) == 0
    plain = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    assert preview(*words) == 0
    coloured = capsys.readouterr().out
    assert "\x1b[32m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_json_holds_every_token_as_the_objective_trains_it(
    talks: str, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = ChatTemplate.open(vocabulary, "chatml", add_tokens=True)
    for number, messages in enumerate([*CHATS.values(), CALLING], 1):
        assert preview(talks, "--tokenizer", str(vocabulary), "--row", str(number), "--json") == 0
        (sequence,) = json.loads(capsys.readouterr().out)["sequences"]
        turned = template.tokens(messages, TOOLS if messages is CALLING else None)
        assert [one["id"] for one in sequence["tokens"]] == turned.ids.tolist()
        assert [one["trained"] for one in sequence["tokens"]] == turned.trained.tolist()
        assert sequence["n_trained"] == turned.trained.sum()


def test_both_answers_of_a_pair_are_shown(tmp_path: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "pairs.jsonl", [PAIR])
    assert preview(file, "--tokenizer", str(vocabulary), "--objective", "preference") == 0
    out = capsys.readouterr().out.replace("|", "").replace("∙", "")
    assert out.index("chosen: ") < out.index("«已经发货了。") < out.index("rejected: ") < out.index("«不知道。")
    assert preview(file, "--tokenizer", str(vocabulary)) == 2
    assert "preference pairs (pairs), not conversations" in capsys.readouterr().err


def test_statistics_are_those_of_training(
    talks: str, vocabulary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in Path(talks).read_text(encoding="utf-8").splitlines()]
    rows += [{"messages": [user("a")]}, {"messages": [user("why " * 99), assistant("so")]}]
    file = written(tmp_path / "more.jsonl", rows)
    words = [file, "--tokenizer", str(vocabulary), "--stats", "--context", "64"]
    assert preview(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    objective = Sft(ChatTemplate.open(vocabulary, "chatml", add_tokens=True), SftConfig(context=64))
    examples = [example for row in rows if (example := objective.encode(row))]
    assert found["rows"] == len(rows)
    assert found["sequences"] == sum(len(one.runs) for one in examples)
    assert (found["tokens"], found["trained"]) == (objective.noted[TOKENS], objective.noted[TAUGHT])
    assert found["dropped"] == dict(objective.dropped)
    assert found["dropped"]["ends with the user"] == 1
    assert found["truncated"] == dict(+objective.truncated)
    assert found["length"]["max"] <= 65
    assert preview(*words) == 0
    assert "trained share" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--row", "9"], "there is no row 9: the data has 6"),
        (["--row", "0"], "counted from 1"),
        (["--objective", "preference", "--trained", "all"], "last answers are trained"),
        (["--context", "1"], "context is 1"),
        (["--objective", "preference"], "conversations (OpenAI messages), not preference pairs"),
    ],
)
def test_what_cannot_be_shown_is_told(
    words: list[str], said: str, talks: str, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preview(talks, "--tokenizer", str(vocabulary), *words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "remedy:" in told


def test_a_row_that_would_be_dropped_and_a_template_that_is_missing_are_told(
    tmp_path: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "bad.jsonl", [{"messages": [user("a")]}])
    assert preview(file, "--tokenizer", str(vocabulary)) == 2
    assert "row 1 is not trained: ends with the user" in capsys.readouterr().err
    assert main(["preview", file, "--tokenizer", str(vocabulary)]) == 2
    assert "no chat template" in capsys.readouterr().err
    assert main(["preview", file, "--tokenizer", str(vocabulary), "--template", "chatml"]) == 2
    assert "lacks <|im_start|>" in capsys.readouterr().err
