"""Bad input as users meet it, through the command: each costs the stage that needs it, which says why."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from crash import FileSystemFaults, die, in_child
from foreign import entry, gguf_bytes, safetensors_bytes

from nacre.cli.main import main
from nacre.lifecycle.audit.audit import AuditOptions, audit
from nacre.lifecycle.audit.readers import ranges
from nacre.lifecycle.audit.readers.safetensors import LONGEST_HEADER
from nacre.lifecycle.audit.recording import record
from nacre.lineage.store import Store

VOCABULARY, HIDDEN, FFN = 160, 32, 64
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": FFN,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY,
}  # fmt: skip
UP = "model.layers.1.mlp.up_proj.weight"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Tensors = dict[str, np.ndarray]


def decoder(seed: int = 0, layers: int = 2, *, is_gated: bool = True) -> Tensors:
    """Random weights under Llama's names."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }  # fmt: skip
    for layer in range(layers):
        lead = f"model.layers.{layer}."
        shapes |= {f"{lead}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{lead}mlp.{name}_proj.weight": (FFN, HIDDEN) for name in ("gate", "up")[not is_gated :]}
        shapes |= {f"{lead}mlp.down_proj.weight": (HIDDEN, FFN)}
        shapes |= {f"{lead}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return drawn(shapes, seed)


def encoder() -> Tensors:
    """Random weights under BERT's names."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN), "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.position_embeddings.weight": (48, HIDDEN), "embeddings.LayerNorm.bias": (HIDDEN,),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
    }  # fmt: skip
    matrices = {
        **{f"attention.self.{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value")},
        "attention.output.dense": (HIDDEN, HIDDEN), "intermediate.dense": (FFN, HIDDEN), "output.dense": (HIDDEN, FFN),
    }  # fmt: skip
    for layer in range(2):
        lead = f"encoder.layer.{layer}."
        shapes |= {f"{lead}{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"{lead}{name}.bias": shape[:1] for name, shape in matrices.items()}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{lead}{name}.weight": (HIDDEN,), f"{lead}{name}.bias": (HIDDEN,)}
    return drawn(shapes, 3)


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def packed(tensors: Tensors) -> bytes:
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = entry("F32", list(values.shape), at, at + values.nbytes)
        at += values.nbytes
    return safetensors_bytes(header, b"".join(values.tobytes() for values in tensors.values()))


def write(folder: Path, weights: bytes | None = None, words: str = "word", **config: Any) -> Path:
    """A whole model: config, weights (none where empty) and a WordPiece vocabulary of `words`."""
    folder.mkdir(parents=True)
    weights = packed(decoder(1)) if weights is None else weights
    if weights:
        (folder / WEIGHTS).write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    learned = [f"{words}{number}" for number in range(VOCABULARY - 4)]
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *learned]))
    return folder


def write_shards(folder: Path, second: bytes | None, name: str = "b.safetensors") -> Path:
    """The model in two shards, of which the second holds these bytes (None: there is none)."""
    tensors = decoder(1)
    halves: dict[str, Tensors] = {"a.safetensors": {}, name: {}}
    for number, (tensor, values) in enumerate(tensors.items()):
        halves["a.safetensors" if number % 2 else name][tensor] = values
    write(folder, b"")
    (folder / "a.safetensors").write_bytes(packed(halves["a.safetensors"]))
    if second is not None:
        (folder / name).write_bytes(second or b"")
    places = {tensor: file for file, members in halves.items() for tensor in members}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    return folder


class Case(NamedTuple):
    """How a folder is made, and of each stage that cannot be tested what its reason holds; the others answer."""

    make: Callable[[Path], Path]
    reasons: dict[str, str]


def _alone(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return write(folder, b"") / name

    return make


def _with_nan(where: tuple[int | slice, ...]) -> bytes:
    tensors = decoder(1)
    tensors[UP][where] = np.nan
    return packed(tensors)


def _header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The model's file with another header before the same values."""
    data = packed(decoder(1))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    changed = change(header)
    return safetensors_bytes(header if changed is None else changed, data[8 + length :])


def _overlap(header: dict[str, Any]) -> None:
    header["model.layers.0.mlp.up_proj.weight"] = header[UP]


def _twice(header: dict[str, Any]) -> bytes:
    text = json.dumps(header)
    return (text[:-1] + f', "{UP}": {json.dumps(header[UP])}}}').encode()


def _linked(folder: Path, target: str) -> Path:
    write(folder, b"")
    outside = folder.parent / "outside.safetensors"
    outside.write_bytes(packed(decoder(1)))
    (folder / WEIGHTS).symlink_to(target.format(outside=outside))
    return folder


def _piped(folder: Path) -> Path:
    write_shards(folder, None)
    os.mkfifo(folder / "b.safetensors")
    return folder


def _folder_as_file(folder: Path) -> Path:
    write(folder, b"")
    (folder / WEIGHTS).mkdir()
    return folder


def _adapter(folder: Path) -> Path:
    write(folder, b"")
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing", "lora_alpha": 8})
    )
    lead = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    parts = drawn({f"{lead}A.weight": (2, HIDDEN), f"{lead}B.weight": (HIDDEN, 2)}, 0)
    (folder / "adapter_model.safetensors").write_bytes(packed(parts))
    return folder


def _unknown_blocks(folder: Path) -> Path:
    """A GGUF file of a block format of next year: its header still tells design and vocabulary."""
    folder.mkdir()
    words = [f"word{number}" for number in range(VOCABULARY)]
    sizes = {"block_count": 2, "embedding_length": HIDDEN, "feed_forward_length": FFN, "attention.head_count": 4}
    metadata = {
        "general.architecture": "llama", **{f"llama.{key}": value for key, value in sizes.items()},
        "tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": words,
    }  # fmt: skip
    (folder / "x.gguf").write_bytes(gguf_bytes([("token_embd.weight", (4, 32), 99, bytes(64))], metadata))
    return folder


class _Planting:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def _pickle(folder: Path) -> Path:
    write(folder, b"")
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": _Planting(folder.parent / "planted")}, protocol=2))
    return folder


def _huge_header(folder: Path) -> Path:
    """A header of the greatest length allowed, all zeros (a sparse file)."""
    write(folder, LONGEST_HEADER.to_bytes(8, "little"))
    os.truncate(folder / WEIGHTS, LONGEST_HEADER + 8)
    return folder


NO_DATA = {"data": "no data set"}
CASES: dict[str, Case] = {
    "an encoder": Case(
        lambda at: write(at, packed(encoder()), model_type="bert", architectures=["BertModel"]),
        {"weights": "different architectures: encoder and decoder"},
    ),
    "a plain feed-forward": Case(
        lambda at: write(at, packed(decoder(1, is_gated=False))), {"weights": "one feed-forward is gated"}
    ),
    "no shared tokens": Case(lambda at: write(at, words="other"), {"weights": "share"}),
    "a single layer": Case(
        lambda at: write(at, packed(decoder(1, layers=1)), num_hidden_layers=1), {"weights": "a single layer"}
    ),
    "NaN everywhere": Case(lambda at: write(at, _with_nan((slice(None),))), {"weights": UP}),
    "one NaN": Case(lambda at: write(at, _with_nan((17, 5))), {"weights": UP}),
    "no weights": Case(lambda at: write(at, b""), {"weights": "there are no weights"}),
    "a shard of no bytes": Case(lambda at: write_shards(at, b""), {"weights": "b.safetensors holds no bytes"}),
    "a missing shard": Case(lambda at: write_shards(at, None), {"weights": "is missing"}),
    "a shard above": Case(lambda at: write_shards(at, None, "../b.safetensors"), {"weights": "leads out"}),
    "a shard by its whole path": Case(lambda at: write_shards(at, None, "/dev/zero"), {"weights": "leads out"}),
    "an adapter without base": Case(_adapter, {"weights": "without its base", "kernel": "without its base"}),
    "a config alone": Case(_alone("config.json"), {"weights": "no weights", "tokenizer": "no tokenizer"}),
    "a tokenizer alone": Case(_alone("vocab.txt"), {"weights": "no weights", "kernel": "neither"}),
    "an unknown block format": Case(_unknown_blocks, {"weights": "unknown type 99"}),
    "code in a pickle": Case(_pickle, {"weights": "code that was not run"}),
    "a link out": Case(lambda at: _linked(at, "{outside}"), {"weights": "link out of its folder"}),
    "a link to a device": Case(lambda at: _linked(at, "/dev/zero"), {"weights": "link out of its folder"}),
    "a header beyond the file": Case(
        lambda at: write(at, (1 << 40).to_bytes(8, "little") + b"{}"), {"weights": "header claims 1,099,511,627,776"}
    ),
    "a huge header": Case(_huge_header, {"weights": "not the JSON"}),
    "bytes shared": Case(lambda at: write(at, _header(_overlap)), {"weights": "share bytes"}),
    "a name twice": Case(lambda at: write(at, _header(_twice)), {"weights": "given twice"}),
    "a pipe as a shard": Case(_piped, {"weights": "no regular file"}),
    "a folder as a file": Case(_folder_as_file, {"weights": "no regular file"}),
    "a truncated file": Case(lambda at: write(at, packed(decoder(1))[:-1000]), {"weights": "outside the file"}),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("reference") / "model", packed(decoder(0)))


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The object that the command answers with; that it ends with 0 and without a traceback."""
    code = main(["audit", *map(str, words), "--json", "--no-record", "--quiet"])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "Traceback" not in err
    answer: dict[str, Any] = json.loads(out)
    return answer


def check(answer: dict[str, Any], reasons: dict[str, str]) -> None:
    """Exactly these stages are UNTESTABLE, each with its reason."""
    untested = {name: one for name, one in answer["stages"].items() if one["verdict"] == "UNTESTABLE"}
    assert set(untested) == set(reasons), {name: one["text"] for name, one in untested.items()}
    for stage, reason in reasons.items():
        assert reason in untested[stage]["reason"]
    assert answer["verdict"] in ("SAME_DESIGN", "INCONCLUSIVE", "UNTESTABLE", "IDENTICAL", "NO_EVIDENCE")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_costs_the_stage_that_needs_it(
    name: str, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = CASES[name].make(tmp_path / "bad")
    reasons = CASES[name].reasons | NO_DATA
    check(told(capsys, bad, "--against", reference), reasons)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", ["a missing shard", "an adapter without base", "code in a pickle"])
def test_a_bad_reference_is_no_other(
    name: str, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = CASES[name].make(tmp_path / "bad")
    check(told(capsys, reference, "--against", bad), CASES[name].reasons | NO_DATA)


def test_the_same_path_twice_is_identical(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = told(capsys, reference, "--against", reference)
    assert {one["verdict"] for one in answer["stages"].values()} == {"IDENTICAL", "UNTESTABLE"}
    check(answer, NO_DATA)


@pytest.mark.parametrize("which", ["empty", "absent", "no model", "pipe"])
def test_what_is_nothing_ends_with_two_and_a_remedy(
    which: str, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    if which == "pipe":
        os.mkfifo(bad)
    elif which != "absent":
        bad.mkdir()
    if which == "no model":
        (bad / "notes.dat").write_text("words")
    for words in ((bad, "--against", reference), (reference, "--against", bad)):
        assert main(["audit", *map(str, words), "--no-record"]) == 2
        err = capsys.readouterr().err
        assert "remedy:" in err
        assert "Traceback" not in err


def test_a_file_that_may_not_be_read_costs_the_weights(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused by the system's own call, for a superuser may read what has no permissions."""
    bad, real = write(tmp_path / "bad"), os.open

    def refusing(path: Any, *rest: Any, **more: Any) -> int:
        if str(path) == str(bad / WEIGHTS):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    check(told(capsys, bad, "--against", reference), {"weights": "Permission denied"} | NO_DATA)


@pytest.mark.parametrize("how", ["cut", "rewritten", "replaced", "removed"])
def test_a_file_that_changes_while_it_is_read_costs_the_weights(
    how: str, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, real = write(tmp_path / "bad"), ranges.RangeSource._values
    file, seen = bad / WEIGHTS, []

    def changing(self: Any, extent: Any, *rest: Any) -> Any:
        if extent.path == file and not seen:
            seen.append(how)
            if how == "cut":
                os.truncate(file, 4000)
            elif how == "rewritten":
                file.write_bytes(packed(decoder(2)))
                os.utime(file, (1, 1))
            elif how == "replaced":
                other = tmp_path / "other"
                other.write_bytes(packed(decoder(2)))
                other.replace(file)
            else:
                file.unlink()
        return real(self, extent, *rest)

    monkeypatch.setattr(ranges.RangeSource, "_values", changing)
    answer = told(capsys, bad, "--against", reference)
    assert seen
    reason = {"cut": "", "removed": "cannot be opened"}.get(how, "changed while it was being read")
    check(answer, {"weights": reason} | NO_DATA)
    assert WEIGHTS in answer["stages"]["weights"]["reason"]


def test_a_header_of_greatest_length_takes_bounded_memory(
    tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check(told(capsys, _huge_header(tmp_path / "bad"), "--against", reference), {"weights": "not the JSON"} | NO_DATA)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 6 * LONGEST_HEADER / 1024


# ---- cut short

_WAITING = """
import sys, time
from pathlib import Path
from nacre.cli.main import main
from nacre.lifecycle.audit import audit
def waits(*_):
    Path(sys.argv[1]).touch()
    time.sleep(600)
audit._STAGES = {**audit._STAGES, "data": waits}
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_audit_cut_short_leaves_nothing(number: signal.Signals, code: int, reference: Path, tmp_path: Path) -> None:
    store, report, reached = tmp_path / "store", tmp_path / "out" / "audit.html", tmp_path / "reached"
    report.parent.mkdir()
    words = ["audit", str(reference), "--against", str(reference), "--store", str(store), "--report", str(report)]
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITING, str(reached), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not reached.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    assert not Store(store).names()
    assert list(report.parent.iterdir()) == []


def test_killed_at_any_step_of_keeping_there_is_a_whole_report_or_none(reference: Path, tmp_path: Path) -> None:
    pairs = audit(reference, [reference], AuditOptions(stages=("kernel",), store=Store(tmp_path / "unused")))

    def keep(root: Path, fatal: int | None) -> int:
        faults = FileSystemFaults(root, fatal, die)
        record(pairs, AuditOptions(stages=("kernel",)), Store(root))
        return min(faults.count, 250)

    record(pairs, AuditOptions(stages=("kernel",)), Store(tmp_path / "first"))  # what is remembered is remembered once
    steps = in_child(lambda: keep(tmp_path / "whole", None))
    assert 3 < steps < 250
    whole = _reports(tmp_path / "whole")
    assert len(whole) == 1
    for fatal in range(1, steps + 1):
        root = tmp_path / f"cut-{fatal}"
        assert in_child(lambda root=root, fatal=fatal: keep(root, fatal)) == -signal.SIGKILL  # type: ignore[misc]
        found = _reports(root)
        assert len(found) <= 1
        for names in found:
            assert names == whole[0]
    record(pairs, AuditOptions(stages=("kernel",)), Store(root))
    assert whole[0] in _reports(root)


def _reports(root: Path) -> list[tuple[str, ...]]:
    """The files of every complete version in a store, each verified against its record."""
    store = Store(root)
    found = []
    for name in store.names():
        for version in store.versions(name):
            store.verify(store.get(name, version), deep=True)
            found.append(tuple(sorted(one.name for one in store.folder(name, version).iterdir())))
    return found
