"""`nacre audit`: what it prints, its exit codes, and that no file makes it fall over."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from nacre.cli.main import main
from nacre.lifecycle.audit.report import render
from nacre.lifecycle.audit.verdict import Evidence, Pair, StageVerdict, untestable
from nacre.lifecycle.audit.words import LANGUAGES, Words, keys


def write_model(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    """A small decoder under Llama's names."""
    draw, d, f = np.random.default_rng(seed), 32, 64
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (96, d), "model.norm.weight": (d,), "lm_head.weight": (96, d)
    }  # fmt: skip
    for layer in range(layers):
        lead = f"model.layers.{layer}."
        shapes |= {f"{lead}self_attn.{name}_proj.weight": (d, d) for name in "qkvo"}
        shapes |= {f"{lead}mlp.gate_proj.weight": (f, d), f"{lead}mlp.up_proj.weight": (f, d)}
        shapes |= {f"{lead}mlp.down_proj.weight": (d, f), f"{lead}input_layernorm.weight": (d,)}
        shapes |= {f"{lead}post_attention_layernorm.weight": (d,)}
    folder.mkdir(parents=True)
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "llama", "hidden_size": d, "num_attention_heads": 4, "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "models" / "ours")


def test_json_is_the_object_of_the_contract(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(model), "--against", str(model), "--json", "--no-record"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "IDENTICAL"
    assert found["references"] == [str(model)]
    assert set(found["stages"]) == {"kernel", "tokenizer", "weights", "data"}
    names = {"verdict", "kind", "p_value", "tier", "evidence", "not_tested"}
    assert all(names <= set(stage) for stage in found["stages"].values())
    assert found["recorded"] is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_terminal_says_every_stage_and_what_was_not_tested(
    model: Path, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(model), "--against", str(model), "--language", language]) == 0
    out, words = capsys.readouterr().out, Words(language)
    for stage in ("kernel", "tokenizer", "weights", "data"):
        assert words(stage) in out
    assert words("untested") in out
    assert words("means_IDENTICAL") in out
    assert ("Services: " if language == "en" else "服务：") in out
    assert "audit/ours@1" in out


def test_the_gate_refuses_with_three_after_the_answer(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["audit", str(model), "--against", str(model)]
    assert main([*base, "--gate", "derived"]) == 3
    told = capsys.readouterr()
    assert "IDENTICAL" in told.out
    assert "the gate refuses" in told.err
    assert main([*base, "--gate", "no-evidence,shared-init"]) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        [], ["--against", "{model}", "--stages", "wieghts"], ["--against", "{model}", "--gate", "similar"],
        ["--against", "{model}", "--report", "absent/folder/x.html"], ["--against", "./absent"],
        ["--against", "{model}", "--group"], ["--group"], ["--against", "{model}", "--seed", "-1"],
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_two_and_a_remedy(
    wrong: list[str], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(model), *[word.format(model=model) for word in wrong]]) == 2
    assert "remedy:" in capsys.readouterr().err


def hostile(folder: Path, kind: str) -> Path:
    """Something that is no model, or a broken one."""
    folder.mkdir()
    if kind == "text file":
        (folder / "notes.txt").write_text("only words")
        return folder / "notes.txt"
    if kind == "gguf garbage":
        (folder / "x.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
        return folder / "x.gguf"
    if kind == "pickle code":
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'exit'\ntR.")
    if kind == "huge header":
        (folder / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    if kind == "zero bytes":
        (folder / "model.safetensors").write_bytes(b"")
    if kind == "a hundred files":
        for number in range(100):
            (folder / f"{number}.dat").write_bytes(bytes(10))
    if kind == "deep config":
        (folder / "config.json").write_text("[" * 100_000)
    return folder


KINDS = (
    "empty",
    "text file",
    "gguf garbage",
    "pickle code",
    "huge header",
    "zero bytes",
    "a hundred files",
    "deep config",
)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_input_ends_in_a_clear_answer_on_either_side(
    kind: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = hostile(tmp_path / "bad", kind)
    for subject, reference in ((bad, model), (model, bad)):
        code = main(["audit", str(subject), "--against", str(reference), "--no-record"])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        assert "a fault in Nacre" not in told.err
        assert code in (0, 2)
        assert "UNTESTABLE" in told.out if code == 0 else "remedy:" in told.err


def test_group(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "models" / "theirs", seed=2, layers=3)
    broken = tmp_path / "models" / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    assert main(["audit", str(tmp_path / "models"), "--group", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["named"] for one in found["groups"]] == [["ours", "theirs"]]
    assert list(found["left_out"]) == ["broken"]
    assert main(["audit", str(tmp_path / "models"), "--group"]) == 0
    assert "left out: broken" in capsys.readouterr().out


def test_trace_shows_what_an_audit_inferred(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    (copy / "README.md").write_text("ours, from scratch")
    assert main(["audit", str(copy), "--against", str(model)]) == 0
    capsys.readouterr()
    main(["trace", str(copy)])
    out = capsys.readouterr().out
    assert f"made_from {model}" in out
    assert "inferred by audit/copy@1: IDENTICAL, p < 1e-06 (exact)" in out
    main(["trace", str(copy), "--mermaid"])
    assert "-.->|made_from|" in capsys.readouterr().out


# The page


def a_pair(name: str = "ours", **more: Any) -> Pair:
    """A pair whose every text is hostile."""
    layers = {"a": [0, 1], "b": [0, 1], "score": [[1.0, 0.0], [0.1, 0.9]]}
    delta = [{"layer": None, "role": "embedding", "relative": 0.0}, {"layer": 0, "role": "up", "relative": 0.004}]
    weights = StageVerdict(
        "weights", "DERIVED", "derived <script>alert(1)</script>", kind="pruned", p_value=1e-9, tier="exact",
        evidence=(Evidence("invariant", 30.0, text="<b>", assumption="&", detail={"screen": layers}),),
        detail={"delta": delta}, not_tested=("<img src=x>",),
    )  # fmt: skip
    stages = {"kernel": untestable("kernel", "<i>"), "weights": weights}
    renamed = {"<a>": "<b>", "same": "same"}
    control, digests = {"ran": True, "fired": False}, {"subject": "sha256:ab", "reference": None}
    return Pair(
        f"/x/{name}<script>", "/y/base", stages, "DERIVED", "<u>said</u>", renamed, control, {}, digests, **more
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_escaped_offline_and_whole(language: str) -> None:
    page = render([a_pair()], language, "2026-01-02")
    for tag in ("<script", "<img", "<u>", "<i>", "<b>&"):
        assert tag not in page.partition("<body>")[2]
    assert not re.search(r"""(?:href|src)=["'](?!#)""", page)
    assert "http" not in page
    for name in ("stages", "evidence", "untested", "layers", "delta", "names", "control", "cite"):
        assert f'<section id="{name}"' in page
    assert page == render([a_pair()], language, "2026-01-02")
    assert "2026-01-02" in page


def test_many_references_are_a_table_first() -> None:
    page = render([a_pair(), a_pair("other")], "en", "2026-01-02")
    assert page.index('id="ranking"') < page.index('id="stages"')


def test_both_languages_say_everything() -> None:
    english, chinese = Words("en"), Words("zh")
    for key in keys():
        assert english(key)
        assert chinese(key)
        places = [sorted(re.findall(r"\{(\w+)\}", words(key))) for words in (english, chinese)]
        assert places[0] == places[1]
