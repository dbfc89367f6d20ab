"""An audit that was kept is read back whole, and its sentences are said in the language of whoever reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from nacre.errors import IntegrityError
from nacre.lifecycle.audit.audit import AuditOptions, audit
from nacre.lifecycle.audit.kept import from_objects, read, sentences_of
from nacre.lifecycle.audit.recording import record
from nacre.lifecycle.audit.report import render
from nacre.lifecycle.audit.result import as_object
from nacre.lifecycle.audit.said import Said, clauses, say, spoken, term
from nacre.lifecycle.audit.verdict import Pair, untestable
from nacre.lineage.store import Store


def write_model(folder: Path, seed: int, nudge: float = 0.0) -> Path:
    """A decoder of Llama's names with random weights, moved a little by `nudge`."""
    draw, moved, d, f = np.random.default_rng(seed), np.random.default_rng(99), 32, 64

    def values(*shape: int) -> Any:
        return (draw.standard_normal(shape) + nudge * moved.standard_normal(shape)).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": values(96, d),
        "model.norm.weight": values(d),
        "lm_head.weight": values(96, d),
    }
    for layer in range(2):
        lead = f"model.layers.{layer}."
        tensors |= {f"{lead}self_attn.{name}_proj.weight": values(d, d) for name in "qkvo"}
        tensors |= {f"{lead}mlp.{name}_proj.weight": values(f, d) for name in ("gate", "up")}
        tensors[f"{lead}mlp.down_proj.weight"] = values(d, f)
        tensors |= {f"{lead}{name}.weight": values(d) for name in ("input_layernorm", "post_attention_layernorm")}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": d, "intermediate_size": f,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    folder = tmp_path_factory.mktemp("models")
    child, parent, other = (
        write_model(folder / "c", 1, 0.01),
        write_model(folder / "p", 1),
        write_model(folder / "o", 2),
    )
    return audit(child, [parent, other], AuditOptions(store=Store(folder / "home")))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_kept_audit_gives_the_page_that_was_drawn_of_it(pairs: list[Pair], language: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = read(store.artifact(record(pairs, AuditOptions(store=store), store)).path)
    assert [one.verdict for one in kept] == [one.verdict for one in pairs]
    assert render(kept, language, "2026-01-02") == render(pairs, language, "2026-01-02")
    assert as_object(kept) == as_object(pairs)
    assert sentences_of(kept) == sentences_of(pairs)


def test_without_its_sentences_an_audit_is_read_in_english(pairs: list[Pair], tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.artifact(record(pairs, AuditOptions(store=store), store)).path
    (folder / "sentences.json").unlink()
    assert render(read(folder), "en", "2026-01-02") == render(pairs, "en", "2026-01-02")
    assert 'lang="en"' in render(read(folder), "zh", "2026-01-02")


def again(reason: str, rows: Any = None) -> str:
    """The reason of a stage, once it was kept and read back."""
    stage = untestable("data", reason)
    pair = Pair("a", "b", {"data": stage}, "UNTESTABLE", "")
    said = sentences_of([pair]) if rows is None else rows
    plain = json.loads(json.dumps([as_object([pair]), said]))
    return from_objects(*plain)[0].stages["data"].reason or ""


def test_sentences_in_sentences_come_back() -> None:
    inner = say("{n:,} tokens are shared", n=3_000)
    whole = say("{where}: {reason}", where=term("pruned"), reason=clauses([inner, "there is no data set"]))
    kept = again(whole)
    assert isinstance(kept, Said)
    assert spoken(kept, "zh") == spoken(whole, "zh")
    assert "3,000" in spoken(kept, "zh")


@pytest.mark.parametrize(
    "row",
    [
        3, None, {}, {"template": "{n:,} tokens are shared", "values": {}},
        {"template": "{n:,} tokens are shared", "values": {"n": "3"}},
        {"template": "{n:,} tokens are shared", "values": {"n": 4}},
        {"template": "{n.__class__}", "values": {"n": 3}},
        {"template": "{word}", "values": {"word": "pruned"}},
        {"template": "{clauses}", "values": {"parts": ["3 tokens are shared"]}},
    ],
)  # fmt: skip
def test_what_does_not_give_the_sentence_again_is_not_its_translation(row: Any) -> None:
    kept = again("3 tokens are shared", {"3 tokens are shared": row})
    assert kept == "3 tokens are shared"


@pytest.mark.parametrize("damage", ["", "[]", "{}", "null", '{"pairs": [3]}', '{"references": []}', "[" * 100_000])
def test_what_is_no_audit_is_refused(damage: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(damage)
    with pytest.raises(IntegrityError):
        read(tmp_path)


@pytest.mark.parametrize(
    "change", [{"kind": "<b>"}, {"stage": "weights"}, {"verdict": "GUILTY"}, {"p_value": "x"}, {"evidence": [{}]}]
)
def test_a_stage_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(as_object([Pair("a", "b", {"data": untestable("data", "why")}, "UNTESTABLE", "")])))
    plain["stages"]["data"] |= change
    with pytest.raises(IntegrityError):
        from_objects(plain, {})
