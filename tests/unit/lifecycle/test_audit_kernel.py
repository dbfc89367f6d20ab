"""Stage 1: what must not move the verdict, what must, and what is said beside it. Shapes only, no weights."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel import canonicalise, compare, group
from nacre.lifecycle.audit.said import is_whole
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tensors import TensorInfo
from nacre.lifecycle.audit.verdict import StageVerdict

Shapes = dict[str, tuple[int, ...]]
CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 176, "vocab_size": 500,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
    "max_position_embeddings": 128, "head_dim": 8,
}  # fmt: skip
EDITS: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 4, "num_key_value_heads": 8,
    "intermediate_size": 11008, "vocab_size": 32000, "head_dim": 16, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
    "hidden_act": "gelu", "tie_word_embeddings": True, "max_position_embeddings": 4, "architectures": None,
    "model_type": "bert", "attention_bias": True, "sliding_window": 64, "num_local_experts": 8,
}  # fmt: skip


def llama(hidden: int = 64, ffn: int = 176, layers: int = 3, vocabulary: int = 500, key: int = 16) -> Shapes:
    """Headers of a Llama."""
    inside = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (key, hidden),
              "self_attn.v_proj": (key, hidden), "self_attn.o_proj": (hidden, hidden),
              "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
              "mlp.down_proj": (hidden, ffn), "input_layernorm": (hidden,),
              "post_attention_layernorm": (hidden,)}  # fmt: skip
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    shapes |= {f"model.layers.{n}.{name}.weight": shape for n in range(layers) for name, shape in inside.items()}
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def bert(hidden: int = 64, layers: int = 2) -> Shapes:
    """Headers of a BERT."""
    at = "bert.encoder.layer.{}."
    square = {f"attention.self.{one}": (hidden, hidden) for one in ("query", "key", "value")}
    matrices = square | {"attention.output.dense": (hidden, hidden), "intermediate.dense": (4 * hidden, hidden),
                         "output.dense": (hidden, 4 * hidden)}  # fmt: skip
    shapes: Shapes = {"bert.embeddings.word_embeddings.weight": (900, hidden),
                      "bert.embeddings.position_embeddings.weight": (128, hidden),
                      "bert.embeddings.token_type_embeddings.weight": (2, hidden),
                      "bert.embeddings.LayerNorm.weight": (hidden,),
                      "bert.embeddings.LayerNorm.bias": (hidden,)}  # fmt: skip
    for layer in range(layers):
        for name, shape in matrices.items():
            shapes[f"{at.format(layer)}{name}.weight"] = shape
            shapes[f"{at.format(layer)}{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            for part in ("weight", "bias"):
                shapes[f"{at.format(layer)}{name}.{part}"] = (hidden,)
    return shapes


def subject(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None = None, file: str = "") -> Subject:
    infos = {name: TensorInfo(name, "BF16", shape, 0, file) for name, shape in shapes.items()}
    return Subject("tiny", Path("."), CONFIG if config is None else config, infos)


def verdict(ours: Subject, theirs: Subject) -> StageVerdict:
    return compare(ours, theirs, canonicalise(ours), canonicalise(theirs))


def renamed(shapes: Shapes, *pairs: tuple[str, str]) -> Shapes:
    for pattern, to in pairs:
        shapes = {re.sub(pattern, to, name): shape for name, shape in shapes.items()}
    return shapes


_YI = (("input_layernorm", "ln1"), ("post_attention_layernorm", "ln2"))
_META = (("model.embed_tokens", "tok_embeddings"), ("model.norm", "norm"), ("lm_head", "output"),
         ("self_attn.q_proj", "attention.wq"), ("self_attn.k_proj", "attention.wk"),
         ("self_attn.v_proj", "attention.wv"), ("self_attn.o_proj", "attention.wo"), ("mlp.gate_proj",
         "feed_forward.w1"), ("mlp.down_proj", "feed_forward.w2"), ("mlp.up_proj", "feed_forward.w3"),
         ("input_layernorm", "attention_norm"), ("post_attention_layernorm", "ffn_norm"),
         (r"^model\.layers", "layers"))  # fmt: skip
_GGUF = (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
         ("self_attn.(.)_proj", r"attn_\1"), ("attn_o", "attn_output"), ("mlp.(gate|up|down)_proj", r"ffn_\1"),
         ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"),
         (r"^model\.layers", "blk"))  # fmt: skip
_NESTED = ((r"^", "language_model."),)
_ATTACKS: dict[str, Callable[[Shapes], Shapes]] = {
    "renamed as Yi": lambda one: renamed(one, *_YI),
    "renamed as Meta": lambda one: renamed(one, *_META),
    "renamed as GGUF": lambda one: renamed(one, *_GGUF),
    "nested": lambda one: renamed(one, *_NESTED),
    "reordered": lambda one: dict(sorted(one.items(), reverse=True)),
    "transposed": lambda one: {name: shape[::-1] if ".layers." in name else shape for name, shape in one.items()},
    "qkv packed": lambda one: _packed(one, ("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    "gate and up packed": lambda one: _packed(one, ("gate_proj", "up_proj"), "gate_up_proj"),
    "rotary buffers": lambda one: one | {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": (4,) for n in range(3)},
    "position ids": lambda one: one | {"model.position_ids": (1, 512)},
    "decoys outside": lambda one: one | {"extra.junk": (64, 64), "model.dummy.weight": (64,), "zzz.3.q": (2, 2)},
    "decoys inside": lambda one: one | {f"model.layers.{n}.decoy.weight": (64, 64) for n in range(3)},
    "decoys that steal words": lambda one: one | {f"model.layers.{n}.aux.mlp.up_proj.weight": (9, 9) for n in range(3)},
    "no head stored": lambda one: {name: shape for name, shape in one.items() if name != "lm_head.weight"},
    "a task's head": lambda one: one | {"score.weight": (2, 64)},
    "some matrices transposed": lambda one: {
        name: shape[::-1] if "up_proj" in name or "q_proj" in name else shape for name, shape in one.items()
    },
    "layers shuffled": lambda one: renamed(one, (r"layers\.0\.", "layers.9."), (r"layers\.2\.", "layers.0.")),
}  # fmt: skip


def _packed(shapes: Shapes, parts: tuple[str, ...], name: str) -> Shapes:
    kept = {one: shape for one, shape in shapes.items() if not any(part in one for part in parts)}
    for one, shape in shapes.items():
        if parts[0] in one:
            rows = sum(shapes[one.replace(parts[0], part)][0] for part in parts)
            kept[one.replace(parts[0], name)] = (rows, *shape[1:])
    return kept


@pytest.mark.parametrize("attack", _ATTACKS)
def test_what_keeps_the_function_keeps_the_verdict(attack: str) -> None:
    found = verdict(subject(_ATTACKS[attack](llama())), subject(llama()))
    assert found.verdict == "IDENTICAL", found.text
    assert "says nothing about weights" in found.text


@pytest.mark.parametrize("field", EDITS)
def test_a_single_edit_of_the_config_does_not_move_the_verdict(field: str) -> None:
    edited = subject(llama(), CONFIG | {field: EDITS[field]})
    found = verdict(edited, subject(llama()))
    assert found.verdict == "IDENTICAL"
    assert verdict(edited, subject(bert())).verdict == "NO_EVIDENCE"
    assert canonicalise(edited).design == canonicalise(subject(llama())).design


@pytest.mark.parametrize("field", ["rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings"])
def test_what_tensors_cannot_confirm_is_told_as_a_difference(field: str) -> None:
    found = verdict(subject(llama(), CONFIG | {field: EDITS[field]}), subject(llama()))
    assert any(str(EDITS[field]) in line for line in found.detail["declared"]["subject"])
    assert any("only configs declare" in one for one in found.not_tested)


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"])
def test_a_lying_size_is_noted_and_the_tensors_win(field: str) -> None:
    found = canonicalise(subject(llama(), CONFIG | {field: EDITS[field]}))
    assert any(str(EDITS[field]) in note for note in found.notes)
    assert (found.sizes.hidden, found.sizes.layers, found.sizes.ffn, found.sizes.vocabulary) == (64, 3, 176, 500)


def test_heads_that_the_shapes_refuse_are_not_believed() -> None:
    """Of an edited head count the other fields are left, and they agree with the shapes."""
    found = canonicalise(subject(llama(), CONFIG | {"num_attention_heads": 7}))
    assert (found.sizes.heads, found.sizes.kv_heads, found.sizes.head_size) == (8, 2, 8)


def test_no_config_is_no_obstacle() -> None:
    found = verdict(subject(llama(), {}), subject(llama()))
    assert found.verdict == "IDENTICAL"


def test_other_sizes_are_one_design_and_are_listed() -> None:
    found = verdict(subject(llama(vocabulary=501)), subject(llama()))
    assert found.verdict == "SAME_DESIGN"
    assert found.detail["sizes"] == {"vocabulary": [501, 500]}
    assert "vocabulary" in found.text


def test_another_design_is_no_evidence_with_its_distance() -> None:
    biased = llama() | {f"model.layers.{n}.self_attn.{p}_proj.bias": (64 if p == "q" else 16,)
                        for n in range(3) for p in "qkv"}  # fmt: skip
    found = verdict(subject(biased), subject(llama()))
    assert found.verdict == "NO_EVIDENCE"
    assert found.detail["distance"] == 3
    assert found.detail["changes"] == ["+ layer: q.bias", "+ layer: k.bias", "+ layer: v.bias"]
    assert found.p_value is None
    assert found.detail["family"] == {"subject": "Qwen2", "reference": "Llama"}


def test_early_yi_is_llama_under_two_renamed_tensors() -> None:
    found = verdict(subject(renamed(llama(), *_YI)), subject(llama()))
    assert found.detail["renamed_templates"] == {
        "model.layers.{i}.ln1.weight": "model.layers.{i}.input_layernorm.weight",
        "model.layers.{i}.ln2.weight": "model.layers.{i}.post_attention_layernorm.weight",
    }


def test_a_packed_tensor_is_mapped_to_all_its_parts() -> None:
    found = verdict(subject(_ATTACKS["qkv packed"](llama())), subject(llama()))
    to = found.detail["rename_map"]["model.layers.0.self_attn.qkv_proj.weight"]
    assert to.split(" + ") == [f"model.layers.0.self_attn.{one}_proj.weight" for one in "qkv"]


def test_unmapped_names_are_listed() -> None:
    found = canonicalise(subject(_ATTACKS["decoys inside"](llama())))
    assert set(found.unmapped) == {f"model.layers.{n}.decoy.weight" for n in range(3)}


def test_a_tower_beside_the_language_model_is_a_stack_of_its_own() -> None:
    tower = {name.replace("bert.encoder.layer", "vision_tower.encoder.layers"): shape
             for name, shape in bert(hidden=32).items() if ".layer." in name}  # fmt: skip
    found = verdict(subject(renamed(llama(), *_NESTED) | tower), subject(llama()))
    assert found.verdict == "SAME_DESIGN"
    assert found.detail["beside"]["subject"]
    canonical = canonicalise(subject(renamed(llama(), *_NESTED) | tower))
    assert (1, "vision.q") in canonical.views
    assert canonical.sizes.hidden == 64


def test_an_index_without_shapes_proves_no_sizes() -> None:
    index = subject(dict.fromkeys(llama(), ()))
    found = verdict(index, subject(llama()))
    assert found.verdict == "SAME_DESIGN"
    assert canonicalise(index).basis == "names"
    assert canonicalise(index).shape == ""
    assert "declared" in found.text


def test_a_config_alone_is_declared_not_proven() -> None:
    alone = Subject("alone", Path("."), CONFIG)
    found = verdict(alone, subject(llama()))
    assert (found.verdict, canonicalise(alone).basis) == ("SAME_DESIGN", "config")
    assert "nothing is proven" in found.text


def test_packed_integers_have_roles_and_no_views() -> None:
    shapes: Shapes = {}
    for name, shape in llama().items():
        if "_proj" in name:
            module = name.removesuffix(".weight")
            shapes |= {f"{module}.qweight": (shape[1] // 8, shape[0]), f"{module}.qzeros": (1, 8),
                       f"{module}.scales": (1, shape[0]), f"{module}.g_idx": (shape[1],),
                       f"{module}.bias": shape[:1]}  # fmt: skip
        else:
            shapes[name] = shape
    found = verdict(subject(shapes), subject(llama()))
    assert found.verdict == "SAME_DESIGN"
    canonical = canonicalise(subject(shapes))
    assert (0, "q") not in canonical.views
    assert any("quantisers add" in note for note in canonical.notes)


@pytest.mark.parametrize(
    ("shapes", "config"), [({}, None), ({"a.b": (3, 4), "c": (7,)}, CONFIG), ({}, {"model_type": "x"})]
)
def test_where_no_role_can_be_told_the_reason_is(shapes: Shapes, config: Any) -> None:
    given = subject(shapes, config or {})
    with pytest.raises(CheckpointError) as raised:
        canonicalise(given)
    assert "tiny" not in raised.value.message  # who asks puts the name before it
    assert is_whole(raised.value.message, "zh")
    assert raised.value.remedy


def test_stage_one_never_says_derived() -> None:
    every = [subject(one) for one in (llama(), bert(), llama(hidden=128, key=32), renamed(llama(), *_META))]
    words = {verdict(a, b).verdict for a in every for b in every}
    assert words == {"IDENTICAL", "SAME_DESIGN", "NO_EVIDENCE"}


def test_groups_hold_one_design_each() -> None:
    canonicals = {"llama": canonicalise(subject(llama())), "yi": canonicalise(subject(renamed(llama(), *_YI))),
                  "wide": canonicalise(subject(llama(hidden=128, key=32))),
                  "bert": canonicalise(subject(bert()))}  # fmt: skip
    first, second = group(canonicals)
    assert (first.named, first.nearest.family, first.same_sizes) == (
        ("llama", "wide", "yi"),
        "Llama",
        (("llama", "yi"),),
    )
    assert first.spellings == (("llama", "wide"), ("yi",))
    assert second.named == ("bert",)


def _word(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnop") for _ in range(7))


def scrambled(shapes: Shapes, seed: int, per_layer: bool, numbers: bool = True) -> Shapes:
    """Every name replaced by random words: the same words in every layer, or others in each; layers permuted."""
    rng, words, found = random.Random(seed), dict[str, str](), list[tuple[str, tuple[int, ...]]]()
    layers = sorted({int(one) for name in shapes for one in re.findall(r"\.(\d+)\.", name)[:1]})
    moved = dict(zip(layers, rng.sample(layers, len(layers)), strict=True))
    for name, shape in shapes.items():
        match = re.search(r"\.(\d+)\.", name)
        template = re.sub(r"\.\d+\.", ".{}.", name) if per_layer else name
        word = words.setdefault(template, f"{_word(rng)}.{{}}{_word(rng)}")
        number = f"{moved[int(match.group(1))]}." if match and numbers else ""
        found.append((word.format(number), shape))
    if numbers:
        rng.shuffle(found)
    return dict(found)


@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize(
    "shapes", [llama(), bert(), llama(key=64), _packed(llama(), ("q_proj", "k_proj", "v_proj"), "qkv")]
)
def test_names_that_say_nothing_are_solved_by_shapes(shapes: Shapes, per_layer: bool) -> None:
    given = subject(scrambled(shapes, 1, per_layer))
    found = canonicalise(given)
    assert compare(given, given, found, _reference(shapes)).verdict == "IDENTICAL"
    assert "names say nothing: roles were solved from shapes" in found.notes
    assert found.ambiguous


def _reference(shapes: Shapes) -> Canonical:
    return canonicalise(
        subject({name.replace("self_attn.qkv.", "self_attn.qkv_proj."): one for name, one in shapes.items()})
    )


def test_what_shapes_leave_open_is_said() -> None:
    found = canonicalise(subject(scrambled(llama(), 2, per_layer=True)))
    assert ("gate", "up") in found.ambiguous
    assert ("k", "v") in found.ambiguous
    assert found.views[(0, "down")].shape == (64, 176)


def test_without_numbers_the_order_of_the_file_tells_layers() -> None:
    given = subject(scrambled(llama(), 3, per_layer=False, numbers=False))
    found = canonicalise(given)
    assert found.sizes.layers == 3
    assert found.design == canonicalise(subject(llama())).design
    assert any("order of tensors" in note for note in found.notes)


def test_names_that_lie_are_overruled_by_shapes() -> None:
    lying = renamed(llama(), ("down_proj", "X"), ("gate_proj", "down_proj"), ("X", "gate_proj"))
    found = canonicalise(subject(lying))
    assert "names contradict shapes: roles were solved from shapes" in found.notes
    assert found.names["model.layers.1.mlp.gate_proj.weight"] == "layers.1.down"
    assert found.design == canonicalise(subject(llama())).design
