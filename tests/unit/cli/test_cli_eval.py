"""`nacre eval`: picks the evaluation by the model's head, writes a report, refuses what it must."""

from __future__ import annotations

import json
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
