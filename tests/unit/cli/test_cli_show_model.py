from __future__ import annotations

import json
from pathlib import Path

import pytest

from nacre.cli.main import main

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip


def test_a_foreign_checkpoint_is_shown_without_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert main(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "basis   none" in out
    assert "llama (decoder, head: lm)" in out
    # keys and values of 2 layers, 2 heads of 16: 2 * 2 * 2 * 16 numbers a token
    assert "per token fp32 512 B, bf16 256 B, int8 128 B" in out
    assert main(["show", str(tmp_path), "--json"]) == 0
    anatomy = json.loads(capsys.readouterr().out)["anatomy"]
    assert anatomy["total_parameters"] == sum(anatomy["parameters"].values())


def test_a_foreign_architecture_is_shown_with_the_reason_for_no_anatomy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rwkv"}))
    assert main(["show", str(tmp_path)]) == 0
    assert "note: no anatomy: " in capsys.readouterr().out


@pytest.mark.parametrize(("text", "note"), [("[]", "holds no JSON object"), ("{", "is no JSON"), (None, "no config")])
def test_a_damaged_config_is_said(
    tmp_path: Path, text: str | None, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert main(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith("model")
    assert "note: " in out
    assert note in out
