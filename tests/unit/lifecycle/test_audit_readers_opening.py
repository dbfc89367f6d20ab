"""Opening subjects: every kind that is audited, and what happens to the stages when a part is damaged or hostile."""

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import entry, safetensors_bytes, small_gguf, small_safetensors, write_folder
from safetensors.torch import save_file
from test_audit_readers import check_against, source_of

from nacre.errors import CheckpointError, NacreError, ReferenceNotFound
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.readers.digest import digest_tensors
from nacre.lineage.record import Record, write
from nacre.lineage.store import Store

INDEX = b'{"weight_map": {"a": "x.safetensors"}}'
CONFIG = {"model_type": "llama", "hidden_size": 3}


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


# ---- folders and lone files


def test_a_folder_opens_with_all_its_parts(tmp_path: Path) -> None:
    subject = open_subject(write_folder(tmp_path / "m", config=CONFIG, tokenizer={"model": {}}))
    assert subject.config == CONFIG
    assert subject.tokenizer == tmp_path / "m" / "tokenizer.json"
    assert {name: info.shape for name, info in subject.infos.items()} == {"a": (2, 3), "b": (4,)}
    assert set(subject.missing) == {"data"}
    assert subject.notes == ()


@pytest.mark.parametrize(
    ("name", "data", "part", "missing"),
    [
        ("config.json", b'{"model_type": "llama"}', "config", {"tokenizer", "weights", "data"}),
        ("model.safetensors.index.json", INDEX, "infos", {"tokenizer", "weights", "data"}),
        ("any.json", INDEX, "infos", {"tokenizer", "weights", "data"}),
        ("x.safetensors", small_safetensors(), "tensors", {"tokenizer", "data"}),
        ("x.gguf", small_gguf(), "tensors", {"data"}),
        ("tokenizer.json", b'{"model": {}, "added_tokens": []}', "tokenizer", {"kernel", "weights", "data"}),
        ("vocab.txt", b"[PAD]\n", "tokenizer", {"kernel", "weights", "data"}),
        ("rows.jsonl", b'{"text": "a"}\n', "data", {"kernel", "tokenizer", "weights"}),
        ("rows.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0), "data", {"kernel", "tokenizer", "weights"}),
    ],
)  # fmt: skip
def test_a_lone_file_opens_as_what_it_is(tmp_path: Path, name: str, data: bytes, part: str, missing: set[str]) -> None:
    (tmp_path / name).write_bytes(data)
    subject = open_subject(tmp_path / name)
    assert getattr(subject, part)
    assert set(subject.missing) == missing


def test_a_folder_of_rows_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "一"}\n', encoding="utf-8")
    subject = open_subject(tmp_path)
    assert subject.data == tmp_path


def test_an_artifact_of_the_store_opens_with_its_record(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    folder = write_folder(store.folder("mine", 1), config=CONFIG)
    write(folder, Record("mine", 1, "model", "", ""))
    subject = open_subject("mine@1", store)
    assert subject.ref == "mine@1"
    assert subject.record is not None
    assert subject.record.kind == "model"


@pytest.mark.parametrize("text", ["not json", '{"a":' + "[" * 100_000, "[]", '{"name": 1e999}', '{"name": "x"}'])
def test_a_lineage_record_that_cannot_be_trusted_is_left_out(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "m", config=CONFIG)
    (folder / "lineage.json").write_text(text)
    subject = open_subject(folder)
    assert subject.record is None
    assert any("lineage record is left out" in note for note in subject.notes)
    assert subject.tensors is not None


@pytest.mark.parametrize(
    "ref", ["no/such/place", "no-such-name", "a\0b", "x" * 5000, "", "model:nothing", "http://h/v1#m"]
)
def test_a_reference_to_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NacreError):
        open_subject(ref)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing of"):
        open_subject(tmp_path)


def test_a_missing_path_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound):
        open_subject(tmp_path / "absent.safetensors")


# ---- damage costs one stage


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"a": NaN}', b"\xff", b"{" * 100_000, b'{"a": "\\udc00"}', b""])
def test_a_damaged_config_costs_only_itself(tmp_path: Path, config: bytes) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "config.json").write_bytes(config)
    subject = open_subject(folder)
    assert subject.config is None
    assert subject.tensors is not None
    assert any(note.startswith("config.json") for note in subject.notes)


def test_a_key_given_twice_in_a_config_is_noted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 1, "hidden_size": 2}')
    subject = open_subject(tmp_path)
    assert subject.config == {"hidden_size": 2}
    assert "hidden_size" in subject.notes[0]


@pytest.mark.parametrize("weights", [b"", b"12", small_safetensors()[:-1]])
def test_damaged_weights_cost_only_themselves(tmp_path: Path, weights: bytes) -> None:
    subject = open_subject(write_folder(tmp_path / "m", weights, config=CONFIG, tokenizer={"model": {}}))
    assert subject.tensors is None
    assert subject.missing["weights"].startswith("model.safetensors")
    assert subject.config == CONFIG
    assert subject.tokenizer is not None


def test_weights_in_a_second_format_stand_in_with_a_note(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", b"damaged", config=CONFIG)
    torch.save({"w": torch.ones(2)}, folder / "pytorch_model.bin")
    subject = open_subject(folder)
    assert set(subject.infos) == {"w"}
    assert any("model.safetensors was passed over" in note for note in subject.notes)


def test_an_empty_tokenizer_file_is_the_reason(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "tokenizer.json").write_bytes(b"")
    assert open_subject(folder).missing["tokenizer"] == "tokenizer.json holds no bytes"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "lineage.json", "train.jsonl"])
def test_a_pipe_does_not_hang_the_audit(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    (folder / "vocab.txt").write_text("[PAD]\n")
    open_subject(folder)


# ---- shards


def sharded(folder: Path, shards: dict[str, Any], places: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in shards.items():
        if isinstance(tensors, bytes):
            (folder / name).write_bytes(tensors)
        else:
            save_file(tensors, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


ONE, TWO = "model-1.safetensors", "model-2.safetensors"


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    a, b = torch.randn(4, 2), torch.randn(3)
    folder = sharded(tmp_path / "m", {ONE: {"a": a}, TWO: {"b": b}}, {"a": ONE, "b": TWO})
    check_against(source_of(folder), {"a": a, "b": b})
    (folder / "model.safetensors.index.json").unlink()
    check_against(source_of(folder), {"a": a, "b": b})


@pytest.mark.parametrize(
    ("shards", "places", "reason"),
    [
        ({ONE: {"a": torch.ones(1)}}, {"a": ONE, "b": TWO}, "missing"),
        ({ONE: {"a": torch.ones(1)}, TWO: b""}, {"a": ONE, "b": TWO}, "holds no bytes"),
        ({ONE: {"a": torch.ones(1)}, TWO: {"a": torch.ones(1)}}, {"a": ONE, "b": TWO}, "lies in"),
        ({ONE: {"a": torch.ones(1)}}, {"a": ONE, "c": ONE}, "lacks 1 tensors"),
        ({ONE: {"a": torch.ones(1)}}, {"a": ONE, "b": "../m/model-1.safetensors"}, "leads out"),
        ({ONE: {"a": torch.ones(1)}}, {"a": ONE, "b": "/etc/passwd"}, "leads out"),
        ({ONE: {"a": torch.ones(1)}}, {"a": ONE, "b": "x\0.safetensors"}, "leads out"),
        ({ONE: {"a": torch.ones(1)}, TWO: {"b": torch.ones(1)}}, {"a": TWO, "b": ONE}, "the index says"),
    ],
)
def test_what_is_wrong_with_a_shard_costs_the_weights(
    tmp_path: Path, shards: dict[str, Any], places: dict[str, str], reason: str
) -> None:
    subject = open_subject(sharded(tmp_path / "m", shards, places))
    assert subject.tensors is None
    assert reason in subject.missing["weights"]
    assert set(subject.infos) >= set(places)  # names for the kernel's stage
    assert subject.config == CONFIG


@pytest.mark.parametrize(
    "index", [b"{}", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}', b"null", b'{"weight_map": {}}']
)
def test_a_damaged_index_costs_the_weights(tmp_path: Path, index: bytes) -> None:
    folder = sharded(tmp_path / "m", {}, {"a": ONE})
    (folder / "model.safetensors.index.json").write_bytes(index)
    subject = open_subject(folder)
    assert "index.json" in subject.missing["weights"]
    assert subject.config == CONFIG


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"model_type": "secret"}')
    (tmp_path / "out.safetensors").write_bytes(small_safetensors())
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "vocab.txt").write_text("a\n")
    (folder / "config.json").symlink_to(secret)
    (folder / "model.safetensors").symlink_to(tmp_path / "out.safetensors")
    (folder / "tokenizer.json").symlink_to(folder / "tokenizer.json")  # a loop
    subject = open_subject(folder)
    assert subject.config is None
    assert "link out of its folder" in subject.missing["weights"]
    assert subject.tokenizer == folder / "vocab.txt"


def test_the_hugging_face_cache_is_followed_to_its_blobs(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "abc", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_bytes(small_safetensors())
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/123"))
    assert set(source_of(snapshot).infos) == {"a", "b"}


# ---- PyTorch


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_checkpoints_are_read_in_place(tmp_path: Path, zipped: bool) -> None:
    matrix = torch.randn(6, 10)
    tensors = collections.OrderedDict(
        plain=matrix, turned=matrix.t(), part=matrix[:, 2:5], rows=matrix[2:4], narrow=matrix.bfloat16(),
        whole=torch.arange(4), parameter=torch.nn.Parameter(matrix.half()), scalar=torch.tensor(2.0),
        empty=torch.zeros(0, 3),
    )  # fmt: skip
    if zipped:
        tensors["eight"] = matrix.to(torch.float8_e4m3fn)
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    check_against(source_of(tmp_path), dict(tensors))


def test_rows_of_a_matrix_held_the_other_way(tmp_path: Path) -> None:
    """A row of it lies all over its bytes: as wide a spread as no single tensor may have."""
    matrix = torch.randn(200, 300)
    torch.save({"turned": matrix.t()}, tmp_path / "pytorch_model.bin")
    source = source_of(tmp_path)
    np.testing.assert_array_equal(source.read("turned", slice(7, 9)), matrix.t()[7:9].numpy())
    np.testing.assert_array_equal(source.read("turned", slice(299, 300)), matrix.t()[299:].numpy())


def test_a_file_that_changes_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(4, 4)}, path)
    source = source_of(tmp_path)
    source.read("a")
    save_file({"a": torch.zeros(4, 4)}, path)
    os.utime(path, (1, 1))
    for reading in (lambda: source.read("a"), lambda: source.read("a", slice(0, 1)), lambda: list(source.blocks("a"))):
        with pytest.raises(CheckpointError, match="changed while it was being read"):
            reading()


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_gives_its_weights(tmp_path: Path, key: str) -> None:
    torch.save({key: torch.nn.Linear(3, 2).state_dict(), "epoch": 3, "lr": 0.1}, tmp_path / "x.pt")
    assert set(source_of(tmp_path / "x.pt").infos) == {"weight", "bias"}


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["zip", "legacy", "bare"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, how: str) -> None:
    planted = tmp_path / "planted"
    path = tmp_path / "m" / "pytorch_model.bin"
    path.parent.mkdir()
    (path.parent / "config.json").write_text(json.dumps(CONFIG))
    value = {"w": torch.ones(2), "x": _Malicious(planted)}
    if how == "bare":
        path.write_bytes(pickle.dumps(_Malicious(planted), protocol=2))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "zip")
    subject = open_subject(path.parent)
    assert not planted.exists()
    assert "mkdir, code that was not run" in subject.missing["weights"]
    assert subject.config == CONFIG
    pickle.loads(pickle.dumps(_Malicious(planted)))  # the pickle does what it says where it is run
    assert planted.exists()


def zip_with(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(f"archive/{name}", data)
    return path


def parts_of(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}


def test_hostile_zips_are_refused_with_the_reason(tmp_path: Path) -> None:
    good, path = parts_of({"w": torch.ones(4, 4)}), tmp_path / "x.bin"
    wide = parts_of({"w": torch.ones(1).expand(2**30, 2**20)})
    cases = [
        ({**good, "data/0": b"\0" * 10**7}, zipfile.ZIP_DEFLATED, "compressed"),
        ({**good, "data/0": b"\0" * 8}, 0, "does not fit"),
        ({name: data for name, data in good.items() if name != "data/0"}, 0, "missing"),
        ({**good, "byteorder": b"big"}, 0, "byte order"),
        ({**good, "data.pkl": good["data.pkl"][:-1]}, 0, "pickle"),
        ({**good, "data.pkl": b"\x80\x02r\xff\xff\xff\x7f."}, 0, "damaged"),
        ({**good, "data.pkl": b"\x80\x02\x8e" + b"\xff" * 7 + b"\x7f"}, 0, "damaged"),
        ({**good, "data.pkl": pickle.dumps([1, {2, 3}])}, 0, "instruction"),
        ({**good, "data.pkl": pickle.dumps({"a": 1})}, 0, "no named tensors"),
        ({"x": b"1"}, 0, "not that of a PyTorch checkpoint"),
        (wide, 0, "does not fit"),
    ]
    for parts, compression, reason in cases:
        with pytest.raises(CheckpointError, match=reason):
            open_subject(zip_with(path, parts, compression))


def test_tables_that_refer_to_themselves_end(tmp_path: Path) -> None:
    """Lists of a list of a list, each a thousand times: short in the file, endless when spelled out."""
    value: Any = []
    for _ in range(50):
        value = [value] * 1000
    circle: dict[str, Any] = {}
    circle["state_dict"] = circle
    for one in (value, circle):
        with pytest.raises(CheckpointError):
            open_subject(zip_with(tmp_path / "x.bin", {"data.pkl": pickle.dumps(one)}))
        legacy = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, one, ["0"]]
        (tmp_path / "y.bin").write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in legacy))
        with pytest.raises(CheckpointError):
            open_subject(tmp_path / "y.bin")


# ---- adapters


def adapter(folder: Path, base: str, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(
        {f"base_model.model.{name}": value for name, value in tensors.items()}, folder / "adapter_model.safetensors"
    )
    plain = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": 6, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(plain))
    return folder


def lora(out: int, rank: int, inside: int, name: str = "layer") -> dict[str, torch.Tensor]:
    return {f"{name}.lora_A.weight": torch.randn(rank, inside), f"{name}.lora_B.weight": torch.randn(out, rank)}


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    tensors = {
        "layer.weight": torch.randn(4, 3).bfloat16(),
        "norm.weight": torch.randn(3),
        "head.weight": torch.randn(2, 3),
    }
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "base", tensors


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
def test_an_adapter_is_read_as_the_model_it_makes(
    tmp_path: Path, base: tuple[Path, dict[str, torch.Tensor]], given: bool, rslora: bool
) -> None:
    path, tensors = base
    parts = {**lora(4, 2, 3), "head.weight": torch.randn(2, 3)}
    folder = adapter(tmp_path / "a", "some/model" if given else str(path), parts, use_rslora=rslora)
    subject = open_subject(folder, base=path if given else None)
    scale = 6 / (2**0.5 if rslora else 2)
    merged = tensors["layer.weight"].float() + scale * parts["layer.lora_B.weight"] @ parts["layer.lora_A.weight"]
    assert subject.base == path
    assert subject.config == CONFIG
    assert subject.tensors is not None
    np.testing.assert_allclose(subject.tensors.read("layer.weight"), merged, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(subject.tensors.read("layer.weight", slice(1, 3)), merged[1:3], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(subject.tensors.read("head.weight"), parts["head.weight"])
    digests, before = digest_tensors(subject.tensors), digest_tensors(source_of(path))
    assert {name for name in digests if digests[name] != before[name]} == {"layer.weight", "head.weight"}


def test_an_adapter_over_matrices_held_the_other_way(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    weight = torch.randn(3, 4)  # (in, out), as GPT-2 holds it
    save_file({"h.c.weight": weight}, tmp_path / "base" / "model.safetensors")
    parts = lora(4, 2, 3, "transformer.h.c")
    folder = adapter(tmp_path / "a", str(tmp_path / "base"), parts, fan_in_fan_out=True)
    b, a = parts["transformer.h.c.lora_B.weight"], parts["transformer.h.c.lora_A.weight"]
    np.testing.assert_allclose(source_of(folder).read("h.c.weight"), weight + 3 * (b @ a).T, rtol=1e-5, atol=1e-5)


def test_an_adapter_without_its_base_says_so(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", "some/model", lora(4, 2, 3))
    subject = open_subject(folder)
    assert subject.adapter is not None
    for stage in ("kernel", "weights"):
        assert "an adapter without its base: 'some/model'" not in subject.missing[stage]  # names are not quoted twice
        assert "some/model is not on this machine" in subject.missing[stage]


@pytest.mark.parametrize(
    ("parts", "settings", "reason"),
    [
        (lora(5, 2, 3), {}, "has the shapes"),
        (lora(4, 2, 3, "other"), {}, "the base has no"),
        ({"layer.lora_A.weight": torch.ones(2, 3)}, {}, "no lora_B"),
        ({"layer.lora_B.weight": torch.ones(4, 2)}, {}, "no lora_A"),
        ({**lora(4, 2, 3), "layer.lora_magnitude_vector": torch.ones(4)}, {}, "no part of a plain LoRA"),
        (lora(4, 2, 3), {"use_dora": True}, "of the kind"),
        (lora(4, 2, 3), {"lora_alpha": "six"}, "lora_alpha"),
        (lora(4, 2, 3), {"alpha_pattern": {"layer": -1}}, "lora_alpha"),
    ],
)
def test_an_adapter_that_does_not_fit_costs_the_weights(
    tmp_path: Path, base: tuple[Path, Any], parts: dict[str, torch.Tensor], settings: dict[str, Any], reason: str
) -> None:
    subject = open_subject(adapter(tmp_path / "a", str(base[0]), parts, **settings))
    assert subject.tensors is None
    assert reason in subject.missing["weights"]
    assert subject.config == CONFIG


def test_a_foreign_expression_is_not_run_over_names(tmp_path: Path, base: tuple[Path, Any]) -> None:
    """PEFT takes the keys of alpha_pattern as regular expressions; one that never ends must not stop an audit."""
    folder = adapter(tmp_path / "a", str(base[0]), lora(4, 2, 3), alpha_pattern={"(a+)+" * 30 + "$": 4, "layer": 4})
    assert source_of(folder).infos["layer.weight"].dtype == "F32"


def test_adapters_on_themselves_end(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", str(tmp_path / "a"), lora(4, 2, 3))
    second = adapter(tmp_path / "b", str(folder), lora(4, 2, 3))
    assert "not on this machine" in open_subject(folder).missing["weights"]
    assert "is an adapter itself" in open_subject(second).missing["weights"]


# ---- data


@pytest.mark.parametrize("rows", [b"", b"not json\n", b'{"a": NaN}' + b"[" * 10_000, b"\xff\xfe\x00", b"[" * 10**6])
def test_damaged_rows_are_the_reason(tmp_path: Path, rows: bytes) -> None:
    (tmp_path / "train.jsonl").write_bytes(rows)
    with pytest.raises(CheckpointError, match="nothing of"):
        open_subject(tmp_path / "train.jsonl")


def test_a_data_set_linked_from_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(CheckpointError, match="link out of its folder"):
        open_subject(tmp_path / "d")


def test_a_single_tensor_is_enough(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes({"a": entry("U8", [1], 0, 1)}, b"\7"))
    np.testing.assert_array_equal(source_of(tmp_path / "x.safetensors").read("a"), [7.0])


@pytest.mark.shared_data
def test_real_configs_open(shared_data: Path) -> None:
    folder = shared_data.parent / "configs"
    if not folder.is_dir():
        pytest.skip(f"no real configs at {folder}")
    subjects = {one.name: open_subject(one) for one in folder.iterdir() if one.is_dir()}
    assert len(subjects) >= 70
    assert all(one.config is not None for one in subjects.values())
    assert subjects["bloom-176b"].notes[0].startswith("model.safetensors.index.json was passed over")
    assert len(subjects["bloom-176b"].infos) == 845  # from the other index: the first one is damaged
