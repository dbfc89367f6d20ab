"""Readers of foreign files: values as the formats' own libraries give them, and refusals with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from foreign import entry, gguf_bytes, safetensors_bytes, small_gguf, small_safetensors
from safetensors.torch import save_file

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.readers import safetensors, strict_json
from nacre.lifecycle.audit.readers.digest import digest_tensors, hash_tensor, hash_tensors
from nacre.lifecycle.audit.readers.dtypes import eight_bit_values
from nacre.lifecycle.audit.readers.files import CHUNK, shown
from nacre.lifecycle.audit.readers.gguf import read_header
from nacre.lifecycle.audit.tensors import TensorSource


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def source_of(path: Path) -> TensorSource:
    subject = open_subject(path)
    assert subject.tensors is not None, subject.missing
    return subject.tensors


def raw_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def check_against(source: TensorSource, tensors: dict[str, torch.Tensor]) -> None:
    """Values, rows and bytes are those of torch."""
    assert set(source.infos) == set(tensors)
    for name, tensor in tensors.items():
        values = tensor.detach().float().numpy()
        assert source.infos[name].shape == tuple(tensor.shape)
        got = source.read(name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, values)
        assert b"".join(bytes(block) for block in source.blocks(name)) == raw_bytes(tensor)
        if tensor.dim():
            for rows in (slice(1, 3), slice(None, None, 2), slice(2, 1), slice(-1, None)):
                np.testing.assert_array_equal(source.read(name, rows), values[rows])


# ---- safetensors


def test_values_of_every_dtype_are_those_of_torch(tmp_path: Path) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    tensors = {
        "bf16": torch.randn(5, 7).bfloat16(),
        "f16": torch.randn(3, 4, 2).half(),
        "f64": torch.randn(4, 2).double(),
        "i64": torch.tensor([-(2**40), 3]),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.0),
        **{str(kind): codes.clone().view(kind) for kind in (torch.float8_e4m3fn, torch.float8_e5m2)},
        **{str(kind): codes.clone().view(kind) for kind in (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)},
    }
    save_file(tensors, tmp_path / "model.safetensors")
    check_against(source_of(tmp_path), tensors)


def test_eight_bit_scales_are_powers_of_two() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e8m0fnu).float().numpy()
    np.testing.assert_array_equal(eight_bit_values("F8_E8M0"), values)


def test_tensors_longer_than_a_chunk_are_put_together(tmp_path: Path) -> None:
    tensors = {"long": torch.randn(3, CHUNK).bfloat16(), "after": torch.randn(2, 2)}
    save_file(tensors, tmp_path / "model.safetensors")
    check_against(source_of(tmp_path), tensors)


def test_rows_read_only_their_bytes(tmp_path: Path) -> None:
    """A sparse file of 1 TB: reading two of its rows neither reads nor holds the others."""
    length = 1 << 30
    header = {"huge": entry("BF16", [length // 2, 1024], 0, length * 1024)}
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(header))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + length * 1024)
    source = source_of(path)
    assert source.read("huge", slice(10**8, 10**8 + 2)).shape == (2, 1024)
    with pytest.raises(CheckpointError, match="at once are too many"):
        source.read("huge")


A = {"a": entry("F32", [2, 3], 0, 24)}
HOSTILE = {
    "shorter than its length": (b"\1\2\3", "no safetensors"),
    "header of 10 GB": ((10 << 30).to_bytes(8, "little") + b"{}", "claims 10,737,418,240 bytes"),
    "no JSON": (safetensors_bytes(b"{not json}"), "not the JSON"),
    "no object": (safetensors_bytes(b"[1]"), "no JSON object"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "not UTF-8"),
    "NaN": (safetensors_bytes(b'{"a": NaN}'), "NaN is no JSON number"),
    "Infinity": (safetensors_bytes(b'{"a": 1e999}'), "too large"),
    "whole number of 5000 digits": (safetensors_bytes(b'{"a": ' + b"1" * 5000 + b"}"), "5,000 digits"),
    "nested a million deep": (safetensors_bytes(b'{"a":' + b"[" * 10**6), "nested too deeply"),
    "nested deeper than allowed": (safetensors_bytes(b'{"a":' + b"[" * 99 + b"]" * 99 + b"}"), "deeper than 64"),
    "more values than allowed": (safetensors_bytes(b"[" + b"0," * strict_json.MOST_VALUES + b"0]"), "values, at most"),
    "half a character": (safetensors_bytes(b'{"\\ud800": 1}'), "lone surrogate"),
    "a name twice": (safetensors_bytes(b'{"a":' + json.dumps(A["a"]).encode() + b',"a": 1}', b"0" * 24), "given twice"),
    "no tensors": (safetensors_bytes({}), "no tensors"),
    "unknown dtype": (safetensors_bytes({"a": entry("F31", [1], 0, 4)}, b"0" * 4), "unknown dtype 'F31'"),
    "negative shape": (safetensors_bytes({"a": entry("F32", [-1], 0, 4)}, b"0" * 4), "the shape"),
    "true in a shape": (safetensors_bytes({"a": entry("U8", [True], 0, 1)}, b"0"), "the shape"),  # type: ignore[list-item]
    "fraction in a shape": (
        safetensors_bytes(b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', b"0"),
        "shape",
    ),
    "shape beyond the span": (safetensors_bytes({"a": entry("F32", [7], 0, 24)}, b"0" * 24), "does not fill"),
    "shape that overflows": (safetensors_bytes({"a": entry("F32", [2**61, 8], 0, 0)}), "does not fill"),
    "offsets beyond the file": (safetensors_bytes(A, b"0" * 23), "outside the file"),
    "offsets backwards": (safetensors_bytes({"a": entry("F32", [0], 24, 0)}, b"0" * 24), "outside the file"),
    "shared bytes": (safetensors_bytes({**A, "b": entry("F32", [6], 20, 44)}, b"0" * 44), "share bytes"),
    "unknown field": (safetensors_bytes({"a": {**A["a"], "code": "x"}}, b"0" * 24), "not described by"),
    "metadata of numbers": (safetensors_bytes({"__metadata__": {"a": 1}, **A}, b"0" * 24), "__metadata__"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_safetensors_file_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    data, reason = HOSTILE[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=reason):
        safetensors.read_header(path)
    with pytest.raises(CheckpointError, match="nothing of"):
        open_subject(path)


def test_bytes_of_no_tensor_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({**A, "b": entry("U8", [1], 30, 31)}, b"0" * 40))
    assert any("15 bytes belong to no tensor" in note for note in open_subject(path).notes)


def test_a_file_cut_short_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(small_safetensors())
    source = source_of(path)
    path.write_bytes(small_safetensors()[:-12])
    with pytest.raises(CheckpointError, match="ends at byte"):
        source.read("b")


def test_names_with_control_characters_are_escaped_when_shown(tmp_path: Path) -> None:
    name = "evil\x1b[2J\u202e\n"
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes({name: entry("F32", [9], 0, 4)}, b"0" * 4))
    with pytest.raises(CheckpointError) as caught:
        safetensors.read_header(tmp_path / "x.safetensors")
    assert all(one.isprintable() for one in caught.value.message)
    assert shown("模型.层") == "模型.层"
    assert len(shown("a" * 10**6)) < 200


# ---- GGUF


def test_gguf_values_are_those_of_the_gguf_package(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 512)).astype(np.float32)
    tensors, expected = [("f", values.shape, 0, values.tobytes())], {"f": values}
    for kind in ("Q4_0", "Q5_1", "Q8_0", "BF16", "F16", "Q4_K", "Q6_K"):
        number = gguf.GGMLQuantizationType[kind]
        if kind.endswith("_K"):  # the package cannot write these: random scales and codes, small enough to be finite
            block = {"Q4_K": 144, "Q6_K": 210}[kind]
            packed = rng.integers(0, 60, (6, 2 * block), dtype=np.uint8)
        else:
            packed = gguf.quantize(values, number)
        tensors.append((kind, values.shape, int(number), packed.tobytes()))
        expected[kind] = gguf.dequantize(packed, number)
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(tensors))
    source = source_of(path)
    for name, wanted in expected.items():
        assert source.infos[name].dtype == ("F32" if name == "f" else name)
        np.testing.assert_array_equal(source.read(name), wanted)
        np.testing.assert_array_equal(source.read(name, slice(1, 4)), wanted[1:4])


def test_gguf_tells_config_and_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(small_gguf())
    subject = open_subject(path)
    assert subject.config is not None
    assert subject.tokenizer == path
    assert {key: subject.config[key] for key in ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")} == {
        "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "vocab_size": 3,
    }  # fmt: skip
    assert subject.infos["packed"].shape == (2, 32)
    assert set(subject.missing) == {"data"}


def _patched(old: bytes, new: bytes) -> bytes:
    assert small_gguf().count(old) == 1
    return small_gguf().replace(old, new)


HOSTILE_GGUF = {
    "another magic": (b"GGUX" + small_gguf()[4:], "does not begin"),
    "version 1": (small_gguf()[:4] + b"\1\0\0\0" + small_gguf()[8:], "version 1"),
    "tensors without end": (small_gguf()[:8] + b"\xff" * 8 + small_gguf()[16:], "claims"),
    "keys without end": (small_gguf()[:16] + b"\xff" * 8 + small_gguf()[24:], "claims"),
    "text without end": (small_gguf()[:24] + b"\xff" * 8 + small_gguf()[32:], "claims a text"),
    "array without end": (
        _patched(b"\x09\0\0\0\x08\0\0\0\x03\0\0\0\0\0\0\0", b"\x09\0\0\0\0\0\0\0" + b"\xff" * 8),
        "arrays",
    ),
    "a name twice": (
        _patched(b"\x06\0\0\0\0\0\0\0packed", b"\x05\0\0\0\0\0\0\0plain\x02"),
        "twice|header|unknown|fit|dim",
    ),
    "cut": (small_gguf()[:100], "header claims"),
    "values cut": (small_gguf()[:-40], "does not fit the file"),
}


# The metadata before them is sound: they cost the weights, and the kernel and the tokenizer are told all the same.
COSTS_THE_WEIGHTS = ("a name twice", "values cut")


@pytest.mark.parametrize("kind", HOSTILE_GGUF)
def test_a_hostile_gguf_file_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    data, reason = HOSTILE_GGUF[kind]
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match=reason):
        read_header(tmp_path / "m.gguf")
    if kind in COSTS_THE_WEIGHTS:
        opened = open_subject(tmp_path / "m.gguf")
        assert opened.tensors is None
        assert re.search(reason, opened.missing["weights"])
    else:
        with pytest.raises(CheckpointError, match=reason):
            open_subject(tmp_path / "m.gguf")


def test_gguf_tensors_that_share_bytes_or_lie_askew_are_refused(tmp_path: Path) -> None:
    path, row = tmp_path / "m.gguf", np.zeros(3, "<f4").tobytes()
    good = gguf_bytes([("a", (3,), 0, row), ("b", (3,), 0, row)])
    at = good.index(b"\1\0\0\0\0\0\0\0b") + 9 + 4 + 8 + 4  # the offset of b
    for offset, reason in ((0, "share bytes"), (33, "alignment"), (1 << 40, "does not fit")):
        path.write_bytes(good[:at] + offset.to_bytes(8, "little") + good[at + 8 :])
        opened = open_subject(path)
        assert opened.tensors is None
        assert reason in opened.missing["weights"]


# ---- digests


def test_copies_in_wider_dtypes_have_the_same_digest(tmp_path: Path) -> None:
    bf16, f16, f32 = torch.randn(50, 33).bfloat16(), torch.randn(50, 33).half(), torch.randn(50, 33)
    eight = torch.randn(40).to(torch.float8_e4m3fn)
    tensors = {
        "b": bf16, "b32": bf16.float(), "b64": bf16.double(), "b16": bf16.half(),
        "h": f16, "h32": f16.float(), "h64": f16.double(),
        "f": f32, "f64": f32.double(), "other": torch.randn(50, 33), "d": torch.randn(9, dtype=torch.float64),
        "e": eight, "e32": eight.float(), "i": torch.arange(5), "i32": torch.arange(5, dtype=torch.int32),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]), "zero": torch.tensor([0.0, 0.0, 0.0]),
    }  # fmt: skip
    save_file(tensors, tmp_path / "model.safetensors")
    digests = digest_tensors(source_of(tmp_path))
    groups = [("b", "b32", "b64", "b16"), ("h", "h32", "h64"), ("f", "f64"), ("e", "e32")]
    for group in groups:
        assert len({digests[name] for name in group}) == 1, group
    assert [digests[name].split(":")[0] for name in ("b", "h", "f", "d", "i", "i32")] == [
        "BF16", "F16", "F32", "F64", "I64", "I32",
    ]  # fmt: skip
    assert len(set(digests.values())) == len(tensors) - sum(len(group) - 1 for group in groups)


def test_the_narrowing_is_over_the_whole_tensor(tmp_path: Path) -> None:
    """A single late value that needs float32 makes the whole tensor float32."""
    values = torch.ones(CHUNK // 2)
    values[-1] = 1 + 2**-20
    save_file({"late": values, "early": torch.ones(CHUNK // 2)}, tmp_path / "model.safetensors")
    late = hash_tensor(source_of(tmp_path), "late")
    assert late.canonical == f"F32:{late.raw}"
    assert hash_tensor(source_of(tmp_path), "early").canonical.startswith("BF16:")


def test_digests_do_not_depend_on_shards_names_or_threads(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.randn(30, i + 1).bfloat16() for i in range(8)}
    for folder in ("whole", "renamed"):
        (tmp_path / folder).mkdir()
    save_file(tensors, tmp_path / "whole" / "model.safetensors")
    save_file({f"x.{name}": value for name, value in tensors.items()}, tmp_path / "renamed" / "model.safetensors")
    whole = hash_tensors(source_of(tmp_path / "whole"), threads=1)
    renamed = hash_tensors(source_of(tmp_path / "renamed"), threads=4)
    assert {f"x.{name}": one for name, one in whole.items()} == renamed


def test_an_unknown_tensor_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(small_safetensors())
    source = source_of(tmp_path / "x.safetensors")
    for attempt in (lambda: source.read("no"), lambda: list(source.blocks("no")), lambda: hash_tensor(source, "no")):
        with pytest.raises(CheckpointError, match="no tensor 'no'"):
            attempt()
