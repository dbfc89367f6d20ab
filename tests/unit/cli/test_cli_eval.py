"""`nacre eval`: picks the evaluation by the model's head, writes a report, refuses what it must."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch

from nacre.cli.main import main
from nacre.data import tokenizer as tokenizers
from nacre.data.tokenizer_config import TokenizerConfig
from nacre.data.write import write_jsonl
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lineage import record
from nacre.lineage.digest import digest_path

TEXTS = ["退款什么时候到账", "where is my order", "请开一张发票", "the parcel was lost"] * 5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    tokenizer = tokenizers.train(
        TEXTS, TokenizerConfig(algorithm="wordpiece", style="bert", vocab_size=200), folder / "classifier"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 32}
    body = Kernel(preset("bert", vocab_size=len(tokenizer), pad_id=tokenizer.pad_id, **sizes))
    hf.save(body.with_head("classify", labels=("a", "b"), pooling="mean"), folder / "classifier")
    hf.save(body.with_head("none"), folder / "body")
    write_jsonl(folder / "test.jsonl", [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(TEXTS)])
    return folder


def test_a_folder_is_measured_on_a_file(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    words = ["eval", str(home / "classifier"), "--data", str(home / "test.jsonl"), "--out", str(out), "--device", "cpu"]
    assert main([*words, "--language", "zh"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert "准确率" in (out / "report.html").read_text(encoding="utf-8")
    assert main([*words, "--json"]) == 0  # an earlier report's folder is written again
    found = json.loads(capsys.readouterr().out)
    assert found["stage"] == "evaluate.classify"
    assert found["metrics"]["examples"] == len(TEXTS)


def test_mistakes_end_with_2(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(home / "test.jsonl")]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    for words, message in (
        ([str(home / "body"), *data, "--out", str(tmp_path / "a")], "nothing to measure"),
        ([str(home / "classifier"), *data, "--out", str(tmp_path / "other")], "holds other files"),
        ([str(home / "classifier"), "--data", str(home / "absent.jsonl"), "--out", str(tmp_path / "b")], "absent"),
    ):
        assert main(["eval", *words]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert "remedy" in told
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other"]


def test_what_cannot_be_measured_leaves_no_folder(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "foreign.jsonl", [{"text": text, "label": "cd"[i % 2]} for i, text in enumerate(TEXTS)])
    good, foreign = str(home / "test.jsonl"), str(tmp_path / "foreign.jsonl")
    for words, message in (
        (["--data", foreign, "--out", str(tmp_path / "r")], "nothing in common"),
        (["--data", good, "--out", str(tmp_path / "r"), "--seed", "-1"], "--seed -1"),
        (["--data", good, "--out", f"{foreign}/r"], "cannot be made"),
    ):
        assert main(["eval", str(home / "classifier"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_weights_that_are_not_numbers_give_no_answer(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = hf.load(home / "classifier")
    with torch.no_grad():
        next(kernel.parameters())[0, 0] = float("nan")
        for parameter in kernel.parameters():
            parameter.mul_(float("nan"))
    shutil.copytree(home / "classifier", tmp_path / "broken")
    hf.save(kernel, tmp_path / "broken")
    assert main(["predict", str(tmp_path / "broken"), "hello", "--device", "cpu"]) == 2
    assert "not finite" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [("predict", "hello"), ("chat",), ("eval", "--data", "test.jsonl")])
def test_an_artifact_with_changed_bytes_is_not_used(
    home: Path, tmp_path: Path, verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(home / "classifier", folder)
    record.write(folder, record.Record(name="x/y", version=1, kind="model", digest=digest_path(folder)))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    words = [str(home / one) if one.endswith(".jsonl") else one for one in verb[1:]]
    assert main([verb[0], str(folder), *words]) == 1
    assert "was changed after it was written" in capsys.readouterr().err


def test_a_model_without_answers_is_refused_before_the_first_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["chat", str(home / "body")]) == 2
    assert "gives no answers" in capsys.readouterr().err


def test_cut_texts_are_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(home / "classifier"), "order " * 200, "parcel", "--json"]) == 0
    told = capsys.readouterr()
    assert ": 1 of 2" in told.err
    assert list(json.loads(told.out)["truncated"].values()) == [1]


def test_a_tagger_of_a_small_context_reads_a_long_text(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default overlap of windows is larger than this kernel's whole context."""
    shutil.copytree(home / "classifier", tmp_path / "tagger")
    hf.save(hf.load(home / "classifier").with_head("tag", labels=("O", "B-X", "I-X")), tmp_path / "tagger")
    (tmp_path / "tagger" / "head.safetensors").unlink(missing_ok=True)
    assert main(["predict", str(tmp_path / "tagger"), "退款什么时候到账" * 20, "--device", "cpu", "--json"]) == 0
    assert "entities" in json.loads(capsys.readouterr().out)["answers"][0]
