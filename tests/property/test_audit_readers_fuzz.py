"""Damaged files of every format: what comes of them is a subject or an error, in bounded memory; nothing is written."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import entry, safetensors_bytes, small_gguf, small_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nacre.errors import NacreError
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.readers.digest import digest_tensors
from nacre.lifecycle.audit.readers.files import shown
from nacre.lifecycle.audit.readers.strict_json import parse_object
from nacre.lifecycle.audit.subject import Subject

MOST_MEMORY = 96 << 20  # bytes that opening a file of a few KB may take at its peak


def _torch_bytes(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    matrix = torch.arange(12.0).reshape(3, 4)
    tensors = {"w": matrix, "turned": matrix.t(), "h": matrix.half()}
    torch.save(tensors, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 1, "lora_alpha": 2, "alpha_pattern": {"a": 3}}
ADAPTED = safetensors_bytes(
    {
        "base_model.model.a.lora_A.weight": entry("F32", [1, 3], 0, 12),
        "base_model.model.a.lora_B.weight": entry("F32", [2, 1], 12, 20),
    },
    b"\0" * 20,
)
BASE = safetensors_bytes({"a.weight": entry("F32", [2, 3], 0, 24)}, np.arange(6, dtype="<f4").tobytes())
# What is damaged -> the files of the folder that is then opened; the first one is damaged.
FOLDERS: dict[str, dict[str, bytes]] = {
    "safetensors": {"model.safetensors": small_safetensors()},
    "gguf": {"model.gguf": small_gguf()},
    "torch zip": {"pytorch_model.bin": _torch_bytes(True)},
    "torch stream": {"pytorch_model.bin": _torch_bytes(False)},
    "index": {
        "model.safetensors.index.json": b'{"weight_map": {"a": "m-1.safetensors", "b": "m-1.safetensors"}}',
        "m-1.safetensors": small_safetensors(),
    },
    "config": {"config.json": b'{"model_type": "llama", "hidden_size": 64, "rope": {"factor": 2.5}, "x": [1, 2]}'},
    "adapter": {"adapter_model.safetensors": ADAPTED, "adapter_config.json": json.dumps(ADAPTER).encode()},
    "adapter config": {"adapter_config.json": json.dumps(ADAPTER).encode(), "adapter_model.safetensors": ADAPTED},
    "rows": {"train.jsonl": '{"text": "a"}\n{"text": "中文", "n": [1, 2]}\n'.encode()},
    "packed rows": {"train.jsonl.gz": gzip.compress(b'{"text": "a"}\n' * 20)},
    "record": {
        "lineage.json": b'{"name": "x", "version": 1, "kind": "model", "digest": "", "fingerprint": ""}',
        "config.json": b"{}",
    },
}  # fmt: skip


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with some bytes changed, taken out, put in, repeated or cut off; often numbers at their edge."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(out) - 1)))
        match draw(st.sampled_from(["flip", "edge", "cut", "insert", "remove", "repeat"])):
            case "flip":
                out[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "edge":
                number = draw(
                    st.sampled_from([b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 8, b"\xff" * 4, b"\0\0\0\x80"])
                )
                out[at : at + len(number)] = number
            case "cut":
                del out[at:]
            case "insert":
                out[at:at] = draw(st.binary(max_size=12))
            case "remove":
                del out[at : at + draw(st.integers(1, 16))]
            case "repeat":
                out[at:at] = out[at : at + draw(st.integers(1, 64))]
    return bytes(out)


def _check(error: NacreError) -> None:
    assert error.remedy
    str(error).encode()


def use(subject: Subject) -> None:
    """Reads everything that a stage could: values, rows, bytes, digests; prints what is printed."""
    for text in (*subject.missing.values(), *subject.notes):
        assert text.isprintable()
        text.encode()
    if subject.tensors is None:
        return
    for name, info in subject.tensors.infos.items():
        try:
            assert subject.tensors.read(name).shape == info.shape
            if info.shape:
                subject.tensors.read(name, slice(0, 1))
        except NacreError as error:
            _check(error)
    try:
        digest_tensors(subject.tensors)
    except NacreError as error:
        _check(error)


def open_damaged(files: dict[str, bytes], name: str | None = None) -> None:
    """Opens a folder of these files, or the one file `name` of it, and checks what may come of it."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "m"
        for path, data in {
            "m/base/model.safetensors": BASE,
            **{f"m/{one}": data for one, data in files.items()},
        }.items():
            (Path(top) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(top) / path).write_bytes(data)
        before = {path: path.stat().st_mtime_ns for path in Path(top).rglob("*")}
        tracemalloc.start()
        try:
            use(open_subject(folder / name if name else folder))
        except NacreError as error:
            _check(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MOST_MEMORY, f"{peak:,} bytes"
        assert {path: path.stat().st_mtime_ns for path in Path(top).rglob("*")} == before


@pytest.mark.parametrize("kind", FOLDERS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_gives_a_subject_or_an_error(kind: str, data: st.DataObject) -> None:
    files = FOLDERS[kind]
    name = next(iter(files))
    damaged = data.draw(damage(files[name]))
    alone = data.draw(st.booleans())
    open_damaged({**files, name: damaged}, name if alone else None)


@pytest.mark.parametrize("kind", ["safetensors", "gguf", "torch zip", "torch stream"])
def test_every_truncation_gives_a_subject_or_an_error(kind: str) -> None:
    name, whole = next(iter(FOLDERS[kind].items()))
    step = max(1, len(whole) // 60)
    for length in range(0, len(whole), step):
        open_damaged({name: whole[:length]}, name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "F4", "I64", "x"]) | JSON,
        "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40) | st.integers(), max_size=3) | JSON,
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(header=st.dictionaries(st.text(max_size=6), ENTRY | JSON, max_size=4), values=st.binary(max_size=40))
def test_any_header_gives_a_subject_or_an_error(header: dict[str, Any], values: bytes) -> None:
    text = json.dumps(header).encode()
    open_damaged({"model.safetensors": safetensors_bytes(text, values)})


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON)
def test_any_json_beside_weights_gives_a_subject(value: Any) -> None:
    text = json.dumps(value).encode()
    for name in (
        "config.json",
        "adapter_config.json",
        "model.safetensors.index.json",
        "lineage.json",
        "tokenizer.json",
    ):
        open_damaged({name: text, "model.safetensors": small_safetensors()})


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(stream=st.binary(max_size=60), damaged=st.data())
def test_any_pickle_gives_a_subject_or_an_error(stream: bytes, damaged: st.DataObject) -> None:
    """Instructions drawn at random, and those of a real table with some changed."""
    with zipfile.ZipFile(io.BytesIO(_torch_bytes(True))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    table = next(name for name in parts if name.endswith("data.pkl"))
    for pickled in (b"\x80\x02" + stream, damaged.draw(damage(parts[table]))):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in {**parts, table: pickled}.items():
                archive.writestr(name, data)
        open_damaged({"pytorch_model.bin": buffer.getvalue()})


@settings(deadline=None)
@given(text=st.text())
def test_what_is_shown_can_be_printed(text: str) -> None:
    assert shown(text).isprintable()
    shown(text).encode()


@settings(deadline=None)
@given(value=st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_parsed_can_be_written_again(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    try:
        parsed = parse_object(data, Path("x.json"))
    except NacreError:
        return
    assert json.loads(json.dumps(parsed, allow_nan=False).encode()) == parsed
