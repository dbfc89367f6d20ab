"""Stage 1 where names say nothing: dummies stay apart, parts are joined, values tell roles of one shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel import canonicalise
from nacre.lifecycle.audit.kernel.exchange import settled
from nacre.lifecycle.audit.readers.joined import JoinedSource, parts_of
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tensors import Floats, TensorInfo

D, HEADS, SIZE, F, V, LAYERS = 32, 4, 8, 80, 96, 3
CONFIG = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": SIZE}
WORDS = {"q": "zebra", "k": "yak", "v": "ant", "o": "bee", "gate": "wolf", "up": "cat", "down": "dog", "norm1": "owl",
         "norm2": "elk", "embedding": "ant", "head": "zoo", "final_norm": "pig"}  # fmt: skip


class Memory:
    """Arrays as the audit reads files."""

    def __init__(self, arrays: Mapping[str, Floats]) -> None:
        self.arrays = arrays
        self.infos = {name: TensorInfo(name, "F32", one.shape, one.nbytes, "") for name, one in arrays.items()}

    def read(self, name: str, rows: slice | None = None) -> Floats:
        return self.arrays[name] if rows is None else self.arrays[name][rows]

    def blocks(self, name: str) -> Iterator[memoryview]:
        yield memoryview(np.ascontiguousarray(self.arrays[name]).tobytes())


def trained(seed: int = 0) -> dict[str, Floats]:
    """A decoder with what training leaves: a favoured part of the hidden space, gains that follow their readers,
    values aligned with `o`, planes shared by queries and keys, a gate whose rows lean to one side."""
    rng = np.random.default_rng(seed)
    favoured = np.exp(rng.normal(0, 0.7, D))
    arrays = {"embedding": rng.normal(size=(V, D)) * favoured, "head": rng.normal(size=(V, D)),
              "final_norm": np.ones(D)}  # fmt: skip
    for layer in range(LAYERS):
        planes = np.tile(np.exp(rng.normal(0, 0.7, (HEADS, 1, SIZE // 2))), (1, 2, 1)).reshape(-1, 1)
        inner = np.exp(rng.normal(0, 0.7, (HEADS * SIZE, 1)))
        lean, other = np.exp(rng.normal(0, 0.5, D)), np.exp(rng.normal(0, 0.5, D))
        made = {
            "q": rng.normal(size=(D, D)) * planes * favoured * lean, "k": rng.normal(size=(D, D)) * planes * favoured,
            "v": rng.normal(size=(D, D)) * inner * favoured, "o": (rng.normal(size=(D, D)) * inner * favoured).T,
            "gate": (rng.normal(size=(F, D)) + 0.6) * favoured * other, "up": rng.normal(size=(F, D)) * favoured,
            "down": (rng.normal(size=(F, D)) * favoured).T,
            "norm1": favoured * lean, "norm2": favoured * other,
        }  # fmt: skip
        arrays |= {f"layers.{layer}.{role}": one for role, one in made.items()}
    return {name: np.ascontiguousarray(one, dtype=np.float32) for name, one in arrays.items()}


def hidden_names(arrays: Mapping[str, Floats], swapped: int | None = None) -> dict[str, Floats]:
    """The arrays under words that say nothing; in layer `swapped` the words of gate and up, and of q and k, trade."""
    trade = {"gate": "up", "up": "gate", "q": "k", "k": "q"}
    found = {}
    for name, values in arrays.items():
        _, _, rest = name.partition("layers.")
        layer, _, role = rest.partition(".")
        if not rest:
            found[f"x{WORDS[name]}.weight"] = values
            continue
        role = trade.get(role, role) if swapped == int(layer) else role
        found[f"lll.{layer}.{WORDS[role]}.weight"] = values
    return found


def solved(arrays: Mapping[str, Floats], config: Mapping[str, int] = CONFIG) -> Canonical:
    source = Memory(arrays)
    return canonicalise(Subject("made", Path("."), config, source.infos, source))


def wrong(found: Canonical, truth: Mapping[str, Floats], source: Memory) -> set[str]:
    """Roles whose view reads other values than the truth's."""
    keys = {(f"layers.{layer}." if layer is not None else "") + role: view for (layer, role), view in
            found.views.items()}  # fmt: skip
    assert set(keys) == set(truth)
    return {name for name, view in keys.items() if not np.array_equal(view.read(source), truth[name])}


def test_values_tell_what_shapes_leave_open_but_queries_from_keys() -> None:
    truth = trained()
    arrays = hidden_names(truth)
    found = solved(arrays)
    assert found.ambiguous == (("k", "q"),)
    assert {name.rpartition(".")[2] for name in wrong(found, truth, Memory(arrays))} <= {"q", "k"}
    by_name = {name: role for name, role in found.names.items() if "dog" in name or "bee" in name}
    assert set(by_name.values()) == {f"layers.{n}.{role}" for n in range(LAYERS) for role in ("down", "o")}


def test_what_values_do_not_tell_stays_open() -> None:
    rng = np.random.default_rng(1)
    noise = {name: rng.normal(size=one.shape).astype(np.float32) for name, one in trained().items()}
    found = solved(hidden_names(noise))
    assert {("gate", "up"), ("k", "o", "q", "v")} <= set(found.ambiguous)


@pytest.mark.parametrize("prefix", ["extra", "azq"])
def test_dummy_tensors_are_left_unmapped_and_listed(prefix: str) -> None:
    arrays = hidden_names(trained())
    shapes = [
        arrays["lll.0.wolf.weight"],
        arrays["lll.0.owl.weight"],
        arrays["xzoo.weight"],
        arrays["lll.0.ant.weight"],
    ]
    rng = np.random.default_rng(2)
    extra = {f"{prefix}.{n}.weight": rng.normal(size=one.shape).astype(np.float32) for n, one in enumerate(shapes)}
    plain, found = solved(arrays), solved({**extra, **arrays})
    assert set(found.unmapped) == set(extra)
    assert (found.design, found.shape, found.names) == (plain.design, plain.shape, plain.names)


def test_neurons_that_nothing_reads_change_a_size_and_no_design() -> None:
    truth = trained()
    wider = dict(truth)
    for name, one in truth.items():
        axis = {"gate": 0, "up": 0, "down": 1}.get(name.rpartition(".")[2])
        if axis is not None:
            wider[name] = np.concatenate([one, one[:13] if axis == 0 else one[:, :13]], axis)
    found, plain = solved(hidden_names(wider)), solved(hidden_names(truth))
    assert (found.design, found.sizes) == (plain.design, replace(plain.sizes, ffn=F + 13))


def test_matrices_in_parts_of_their_rows_are_one() -> None:
    whole = hidden_names(trained())
    parts: dict[str, Floats] = {}
    for name, one in whole.items():
        cut = [one[:13], one[13:]] if one.ndim == 2 and name.startswith("lll") else [one]
        parts |= {f"{name}.{n}" if len(cut) > 1 else name: part for n, part in enumerate(cut)}
    joined = JoinedSource(Memory(parts), parts_of(Memory(parts).infos))
    assert {name: info.shape for name, info in joined.infos.items()} == {name: one.shape for name, one in whole.items()}
    name = "lll.1.wolf.weight"
    for rows in (None, slice(3, 9), slice(10, 20, 3), slice(20, 40), slice(5, 5)):
        assert np.array_equal(joined.read(name, rows), whole[name][rows or slice(None)])
    assert b"".join(map(bytes, joined.blocks(name))) == whole[name].tobytes()
    found = canonicalise(Subject("parts", Path("."), CONFIG, joined.infos, joined))
    assert (found.names, found.shape) == (solved(whole).names, solved(whole).shape)


@pytest.mark.parametrize(
    "names", [["m.experts.w.0", "m.experts.w.1"], ["m.w.weight.0", "m.w.weight.2"], ["blocks.0", "blocks.1"],
              ["m.w.weight", "m.w.weight.0", "m.w.weight.1"]]
)  # fmt: skip
def test_what_only_looks_like_parts_is_not_joined(names: list[str]) -> None:
    assert parts_of({name: TensorInfo(name, "F32", (4, 4), 64, "") for name in names}) == {}


def test_open_roles_are_settled_against_a_reference_in_each_layer_by_itself() -> None:
    truth = trained()
    plain = {f"model.layers.{n}.{module}.weight": truth[f"layers.{n}.{role}"] for n in range(LAYERS) for role, module in
             {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
              "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "norm1": "input_layernorm",
              "norm2": "post_attention_layernorm"}.items()}  # fmt: skip
    plain |= {"model.embed_tokens.weight": truth["embedding"], "model.norm.weight": truth["final_norm"],
              "lm_head.weight": truth["head"]}  # fmt: skip
    reference = solved(plain)
    assert reference.ambiguous == ()
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
    turned = hidden_names(_turned(truth, turn), swapped=1)
    found = solved(turned)
    assert ("k", "q") in found.ambiguous
    after = settled(found, reference, Memory(turned), Memory(plain))
    assert after.ambiguous == ()
    assert wrong(after, _turned(truth, turn), Memory(turned)) <= {
        f"layers.{n}.norm{m}" for n in range(LAYERS) for m in (1, 2)
    }


def _turned(arrays: Mapping[str, Floats], turn: np.ndarray) -> dict[str, Floats]:
    """Gains folded, the hidden space turned: the same function."""
    found = {}
    for name, one in arrays.items():
        role = name.rpartition(".")[2]
        gain = name.removesuffix(role) + {"q": "norm1", "k": "norm1", "v": "norm1", "gate": "norm2", "up": "norm2",
                                          "head": "final_norm"}.get(role, "")  # fmt: skip
        if one.ndim == 1:
            found[name] = np.ones_like(one)
        elif role in ("o", "down"):
            found[name] = np.ascontiguousarray(turn @ one, dtype=np.float32)
        else:
            folded = one * arrays[gain] if gain in arrays else one
            found[name] = np.ascontiguousarray(folded @ turn.T, dtype=np.float32)
    return found
