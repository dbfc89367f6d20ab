"""Conversations: what was said before is heard, the oldest turns are forgotten and counted, others go on as before."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from engine_folders import native_folder

from nacre.cli.main import main
from nacre.errors import DataError
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.sampling import SamplingConfig
from nacre.lifecycle.evaluate.converse import Talk
from nacre.lifecycle.evaluate.predict import Model, open_model
from nacre.progress import Silent

HOW = GenerationConfig(8, SamplingConfig(temperature=0.0))


def opened(folder: Path) -> Model:
    return open_model(folder, None, "cpu", 1, Silent())


def test_an_answer_is_what_the_model_writes_after_all_turns(tmp_path: Path) -> None:
    folder = native_folder(tmp_path, "decoder")
    model = opened(folder)
    talk = Talk.open(folder, model, HOW, "be brief")
    assert talk is not None
    for text in ("hi", "你好"):
        ids = talk.template.prompt([*talk.turns, {"role": "user", "content": text}])
        answer = talk.say(text)
        (expected,) = generate(model.kernel, [ids], HOW)
        assert answer == model.words.decode(expected.ids).strip()
    assert [one["role"] for one in talk.turns] == ["system", "user", "assistant", "user", "assistant"]


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(tmp_path: Path) -> None:
    folder = native_folder(tmp_path, "decoder")
    talk = Talk.open(folder, opened(folder), HOW, "be brief")
    assert talk is not None
    for _ in range(6):
        talk.say("where is my parcel 我的包裹")
    assert talk.forgotten > 0
    assert talk.forgotten % 2 == 0
    assert talk.turns[0] == {"role": "system", "content": "be brief"}
    assert len(talk.turns) == 1 + 12 - talk.forgotten
    with pytest.raises(DataError, match="positions"):
        talk.say("parcel " * 200)
    assert talk.turns[-1]["role"] == "assistant"


def test_models_without_a_template_hold_no_conversation(tmp_path: Path) -> None:
    for kind, folder in (("decoder", tmp_path / "a"), ("encoder", tmp_path / "b")):
        native_folder(folder, kind, template=None)
        assert Talk.open(folder, opened(folder), HOW) is None


def test_the_command_talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = native_folder(tmp_path / "with", "decoder")
    talk = Talk.open(folder, opened(folder), HOW, "be brief")
    assert talk is not None
    expected = [talk.say(text) for text in ("hi", "你好")]
    words = ["--max-tokens", "8", "--temperature", "0", "--device", "cpu", "--store", str(tmp_path / "store")]
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n你好\n"))
    assert main(["chat", str(folder), "--system", "be brief", *words]) == 0
    assert capsys.readouterr().out == "".join(f"{one}\n" for one in expected)
    plain = native_folder(tmp_path / "without", "decoder", template=None)
    assert main(["chat", str(plain), "--system", "be brief", *words]) == 2
    assert "no chat template" in capsys.readouterr().err
