"""Checkpoints are written whole and read strictly: what is wrong is said, with what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pico import TEXT_PRESETS, pico, pico_config, tokens
from safetensors.torch import load_file, save_file

from nacre.errors import CheckpointError, ConfigError, ResourceError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import PRESETS


def saved(folder: Path, name: str = "llama2", **choices: Any) -> Kernel:
    kernel = pico(name, **choices)
    hf.save(kernel, folder)
    return kernel


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    kernel = saved(tmp_path, name)
    again = hf.load(tmp_path)
    assert again.config == kernel.config
    ours, theirs = kernel.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("name", TEXT_PRESETS)
def test_every_preset_loads_strictly_in_transformers_with_the_same_logits(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    kernel = saved(tmp_path, name)
    described = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    cls = getattr(transformers, described["architectures"][0])
    model, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    ids = tokens(2, 9)
    given = {"decoder_ids": ids} if name.startswith("t5") else {}
    theirs = {"decoder_input_ids": ids} if given else {}
    with torch.no_grad():
        ours = kernel.lm_logits(kernel(ids, **given).hidden)
        assert torch.allclose(ours, model.eval()(input_ids=ids, **theirs).logits, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama2", "qwen3", "t5"])
def test_trap_46_tied_weights_are_stored_once_and_tied_again(name: str, tmp_path: Path) -> None:
    saved(tmp_path, name, tied=True, **({"head": "mlm"} if name == "bert" else {}))
    stored = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.shape[0] == 97 and tensor.dim() == 2 for tensor in stored.values()) == 1
    again = hf.load(tmp_path)
    assert again.lm_head is None
    assert again.embed.tokens is not None
    ids = tokens(1, 4)
    given = {"decoder_ids": ids} if name == "t5" else {}
    again.lm_logits(again(ids, **given).hidden).sum().backward()
    assert again.embed.tokens.weight.grad is not None
    assert (again.embed.tokens.weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama2", "t5", "t5-v1.1"])
def test_trap_46_the_config_says_when_weights_are_not_tied(name: str, tmp_path: Path) -> None:
    saved(tmp_path, name, tied=False)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["tie_word_embeddings"] is False
    assert hf.load(tmp_path).config.tied is False


def test_trap_46_tied_copies_must_be_equal(tmp_path: Path) -> None:
    saved(tmp_path, tied=True)
    edit_tensors(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert hf.load(tmp_path).config.tied
    edit_tensors(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        hf.load(tmp_path)


def test_trap_49_a_renamed_tensor_fails_and_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    old, new = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.query_proj.weight"
    edit_tensors(tmp_path, lambda t: t.update({new: t.pop(old)}))
    with pytest.raises(CheckpointError, match=r"was 'layers.1.self_attn.query_proj.weight' renamed") as caught:
        hf.load(tmp_path)
    assert "missing" in caught.value.message
    assert "unexpected" in caught.value.message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: t.pop("model.norm.weight"), "missing: norm.weight"),
        (lambda t: t.update({"model.layers.0.self_attn.sinks": torch.ones(4)}), "unexpected: layers.0"),
        (lambda t: t.update({"model.norm.weight": torch.ones(31)}), r"shape \(31,\); config.json asks for \(32,\)"),
        (lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}), "quantised"),
        (lambda t: t.update({"norm.weight": torch.ones(32)}), "twice"),
    ],
)
def test_trap_49_loading_is_strict(change: Any, word: str, tmp_path: Path) -> None:
    saved(tmp_path)
    edit_tensors(tmp_path, change)
    with pytest.raises(CheckpointError, match=word):
        hf.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("llama2", {"model_type": "lama"}, "did you mean 'llama'"),
        ("llama2", {"model_type": "mixtral"}, "mixtral"),
        ("llama2", {"architectures": ["LlamaForQuestionAnswering"]}, "LlamaForQuestionAnswering"),
        ("llama2", {"attn_logit_softcapping": 50.0}, "softcap"),
        ("llama2", {"num_local_experts": 8}, "num_local_experts"),
        ("llama2", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama2", {"hidden_act": "quick_gelu"}, "quick_gelu"),
        ("llama2", {"pretraining_tp": 2}, "pretraining_tp"),
        ("llama2", {"rope_scaling": {"rope_type": "su", "factor": 2}}, "su"),
        ("llama2", {"num_key_value_heads": 3}, "kv_heads"),
        ("bert", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("qwen3", {"layer_types": ["full_attention", "linear_attention"]}, "layer_types"),
        ("t5", {"feed_forward_proj": "double-gelu"}, "double-gelu"),
        ("vit", {"image_size": [12, 16]}, "not square"),
    ],
)
def test_what_a_kernel_cannot_express_is_refused(name: str, changes: dict[str, Any], word: str, tmp_path: Path) -> None:
    saved(tmp_path, name)
    edit(tmp_path, **changes)
    with pytest.raises(CheckpointError) as caught:
        hf.load(tmp_path)
    assert word in str(caught.value)
    assert caught.value.remedy


def test_unknown_harmless_keys_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path)
    edit(tmp_path, my_note="hello", another=None)
    hf.load(tmp_path)
    assert "my_note" in caplog.text
    assert "another" not in caplog.text


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4], b"", b"\xff" * 64 + whole[64:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="safetensors"):
            hf.load(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        hf.load(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not JSON"):
        hf.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"no config.json"):
        hf.load(tmp_path / "nowhere")


def _shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    places = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    (folder / "model.safetensors").unlink()


def test_shards_are_joined_and_must_agree_with_their_index(tmp_path: Path) -> None:
    kernel = saved(tmp_path)
    _shard(tmp_path)
    again = hf.load(tmp_path)
    assert torch.equal(again(tokens(1, 5)).hidden, kernel(tokens(1, 5)).hidden)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002"):
        hf.load(tmp_path)


def test_pickled_weights_are_read_safely(tmp_path: Path) -> None:
    kernel = saved(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert torch.equal(hf.load(tmp_path)(tokens(1, 5)).hidden, kernel(tokens(1, 5)).hidden)
    torch.save({"model": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        hf.load(tmp_path)
    torch.save({"model": {"norm.weight": torch.ones(2)}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="named tensors"):
        hf.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_trap_45_the_stored_dtype_is_that_of_the_parameters(dtype: torch.dtype, tmp_path: Path) -> None:
    hf.save(pico("llama2").to(dtype), tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {dtype}
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["dtype"] == str(dtype).removeprefix(
        "torch."
    )
    assert next(hf.load(tmp_path).parameters()).dtype == dtype


def test_trap_28_t5_in_float16_is_loaded_as_float32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hf.save(pico("t5").half(), tmp_path)
    assert next(hf.load(tmp_path).parameters()).dtype == torch.float32
    assert "float16" in caplog.text


def test_trap_45_an_interrupted_save_never_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nacre.kernel.hf_files.save_file", full)
    with pytest.raises(ResourceError, match="No space left"):
        saved(tmp_path)
    assert not (tmp_path / "config.json").exists()
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "tokenizer.json").exists()
    with pytest.raises(CheckpointError, match=r"no config.json"):
        hf.load(tmp_path)


@pytest.mark.parametrize(("name", "pooling"), [("bert", "mean"), ("bert", "last"), ("llama2", "mean"), ("vit", "mean")])
def test_a_head_without_a_class_is_kept_beside_the_body(name: str, pooling: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    kernel = saved(tmp_path, name, head="classify", labels=("是", "no", "?"), pooling=pooling)
    model, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert "classifier.weight" in load_file(tmp_path / "head.safetensors")
    again = hf.load(tmp_path)
    assert again.config == kernel.config
    ids = torch.randn(2, 2, 12, 12) if name == "vit" else tokens(2, 7)
    with torch.no_grad():
        assert torch.equal(kernel.class_logits(kernel(ids).hidden), again.class_logits(again(ids).hidden))
        named = {"pixel_values": ids} if name == "vit" else {"input_ids": ids}
        output = model.eval()(**named)
    assert torch.allclose(output.last_hidden_state, kernel(ids).hidden, atol=1e-4)
    if name == "bert":
        assert output.pooler_output.abs().max() == 0
    saved(tmp_path, name)
    assert not (tmp_path / "head.safetensors").exists()


def test_training_choices_are_kept_where_the_format_has_no_field(tmp_path: Path) -> None:
    kernel = saved(tmp_path, "llama2", dropout=0.2, embedding_dropout=0.1)
    assert hf.load_config(tmp_path) == kernel.config
    described = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert described["nacre"]["training"] == {"dropout": 0.2, "embedding_dropout": 0.1}


@pytest.mark.parametrize(
    ("name", "choices", "word"),
    [
        ("llama2", {"position": "learned"}, "position='learned'"),
        ("mistral", {"full_attention_layers": (0,)}, "full_attention_layers"),
        ("gpt2", {"norm": "rms"}, "norm='rms'"),
        ("llama2", {"qk_norm": True}, "qk_norm"),
        ("t5", {"gated": True, "activation": "gelu"}, "activation"),
    ],
)
def test_what_the_format_cannot_say_is_refused_before_training(
    name: str, choices: dict[str, Any], word: str, tmp_path: Path
) -> None:
    kernel = pico(name, **choices)
    with pytest.raises(CheckpointError, match=word):
        hf.check_savable(kernel.config)
    with pytest.raises(CheckpointError, match=word):
        hf.save(kernel, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_check_savable_accepts_every_preset() -> None:
    for name in PRESETS:
        hf.check_savable(pico_config(name))
    hf.check_savable(pico_config("bert", head="classify", labels=("a", "b"), pooling="mean"))
    with pytest.raises(ConfigError):
        pico_config("bert", head="classify")


def test_old_names_of_bert_are_understood(tmp_path: Path) -> None:
    kernel = saved(tmp_path, "bert", head="pretraining")

    def age(tensors: dict[str, torch.Tensor]) -> None:
        for name in [n for n in tensors if "LayerNorm" in n]:
            tensors[name.replace("weight", "gamma").replace("bias", "beta")] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()

    edit_tensors(tmp_path, age)
    edit(tmp_path, architectures=["BertForMaskedLM"])
    again = hf.load(tmp_path)
    assert again.config.head == "pretraining"
    assert torch.equal(again(tokens(1, 5)).hidden, kernel(tokens(1, 5)).hidden)


def test_a_body_without_the_class_prefix_is_understood(tmp_path: Path) -> None:
    kernel = saved(tmp_path, "gpt2")

    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)

    edit_tensors(tmp_path, strip)
    assert torch.equal(hf.load(tmp_path)(tokens(1, 5)).hidden, kernel(tokens(1, 5)).hidden)


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", "64"), ("num_hidden_layers", [2]), ("num_attention_heads", True)]
)
def test_a_number_that_is_none_is_refused_by_name(key: str, value: Any, tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, **{key: value})
    with pytest.raises(CheckpointError, match=r"config\.json: the value of \w+ is .*, no number"):
        hf.load(tmp_path)


def test_weights_can_be_read_by_whom_the_config_can(tmp_path: Path) -> None:
    """safetensors writes for the owner alone: a server of another user could not load the model."""
    saved(tmp_path)
    modes = {(tmp_path / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1
