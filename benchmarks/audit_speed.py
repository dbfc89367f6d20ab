"""How fast an audit reads a pair of checkpoints of a 7B model's shape, beside `cat` of the same bytes.

python benchmarks/audit_speed.py [--gib 2 | --quick] [--runs 3] [--folder DIR]

Writes a bfloat16 checkpoint with the shapes of Llama-2-7B, sharded, and its copy. Shards up to `--gib` hold values; the
others are sparse files, of which only headers are read. `nacre digests` is the SHA-256 of every tensor, what a record
cites; `nacre equal` finds the equal tensors of the two as the audit's first test does, and on a copy that is its
dearest case: every byte of both is compared. Programs run in turns, in processes of their own, with the files out of
the system's cache (`cold`, as a model larger than memory is) and in it (`warm`). Peak memory is that of the process;
seconds of CPU (imports count) are what the load of the machine moves least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import record

HIDDEN, FFN, VOCABULARY, LAYERS = 4096, 11008, 32000, 32
QUICK_GIB = 200 / 1024
_POOL = 16 << 20  # values drawn once; every tensor begins elsewhere in them
Shape = tuple[int, ...]


def tensors() -> Iterator[tuple[int, str, Shape]]:
    """(shard, name, shape) of Llama-2-7B: a shard a layer, embeddings before and the head after."""
    yield 0, "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "o"):
            yield layer + 1, f"model.layers.{layer}.self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        for name, shape in (("gate", (FFN, HIDDEN)), ("up", (FFN, HIDDEN)), ("down", (HIDDEN, FFN))):
            yield layer + 1, f"model.layers.{layer}.mlp.{name}_proj.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield layer + 1, f"model.layers.{layer}.{name}.weight", (HIDDEN,)
    yield LAYERS + 1, "model.norm.weight", (HIDDEN,)
    yield LAYERS + 1, "lm_head.weight", (VOCABULARY, HIDDEN)


def write_model(folder: Path, seed: int, real_bytes: int) -> list[Path]:
    """Writes a checkpoint of 13.5 GB by its headers; the shards that hold values: the first ones up to `real_bytes`."""
    folder.mkdir(parents=True)
    pool = (np.random.default_rng(seed).standard_normal(_POOL, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    shards: dict[int, list[tuple[str, Shape]]] = {}
    for shard, name, shape in tensors():
        shards.setdefault(shard, []).append((name, shape))
    places: dict[str, str] = {}
    real: list[Path] = []
    left = real_bytes
    for number, members in shards.items():
        path = folder / f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        size = _write_shard(path, members, pool if left > 0 else None, number)
        if left > 0:
            real.append(path)
        left -= size
        places.update({name: path.name for name, _ in members})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    config = {
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 32, "vocab_size": VOCABULARY, "torch_dtype": "bfloat16",
        "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return real


def _write_shard(path: Path, members: list[tuple[str, Shape]], pool: Any, seed: int) -> int:
    header, at = {}, 0
    for name, shape in members:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if pool is None:
            file.truncate(8 + len(text) + at)
            return at
        written = 0
        while written < at:
            start = (seed * 7919 + written) % (_POOL // 2)
            piece = pool[start : start + (at - written) // 2]
            written += file.write(piece.tobytes())
        file.flush()
        os.fsync(file.fileno())
    return at


def drop_cache(paths: list[Path]) -> None:
    """Asks the system to forget what it holds of these files."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_cat(paths: list[Path]) -> tuple[float, float]:
    """Seconds, and 0 for memory that is not worth measuring."""
    began = time.perf_counter()
    subprocess.run(["cat", *map(str, paths)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, 0.0


def run_child(program: str, paths: list[Path]) -> tuple[float, float]:
    """Seconds from opening the folders to the last answer, and peak memory in MiB, of a fresh process."""
    command = [sys.executable, __file__, "--program", program, "--child", *map(str, paths)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told["seconds"], told["peak_mib"]


def work(program: str, paths: list[Path]) -> None:
    """The measured work: both folders are opened, and the tensors of the given shards are hashed or compared."""
    from nacre.lifecycle.audit.opening import open_subject
    from nacre.lifecycle.audit.readers.digest import hash_tensors

    began, done, sources = time.perf_counter(), 0, []
    for folder in sorted({path.parent for path in paths}):
        subject = open_subject(folder)
        if subject.tensors is None:
            raise SystemExit(subject.missing["weights"])
        files = {path.name for path in paths if path.parent == folder}
        names = [name for name, info in subject.infos.items() if info.file in files]
        sources.append((subject.tensors, names))
        if program == DIGESTS:
            done += len(hash_tensors(subject.tensors, names))
    if program == EQUAL:
        done = equal_tensors(sources)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "done": done}))


def equal_tensors(sources: list[tuple[Any, list[str]]]) -> int:
    """How many tensors of the first source the second holds, by the audit's own test."""
    from nacre.lifecycle.audit.canonical import Canonical, Sizes, View
    from nacre.lifecycle.audit.weights.contents import labels
    from nacre.lifecycle.audit.weights.side import Side

    sides = []
    for source, names in sources:
        views = {(None, name): View(name, source.infos[name].shape) for name in names}
        sides.append(Side(Canonical("decoder", Sizes(), "", "", (), views=views), source))
    ours, theirs = labels(*sides)
    equal = len(set(ours.values()) & set(theirs.values()))
    if equal != len(sources[0][1]):
        raise SystemExit(f"of {len(sources[0][1])} copied tensors {equal} were found")
    return equal


DIGESTS, EQUAL = "nacre digests", "nacre equal"
PROGRAMS: dict[str, Callable[[list[Path]], tuple[float, float]]] = {
    "cat": run_cat, DIGESTS: partial(run_child, DIGESTS), EQUAL: partial(run_child, EQUAL),
}  # fmt: skip


def measure(paths: list[Path], runs: int) -> list[dict[str, Any]]:
    """A row for each program and state of the cache; `of_cat` is the speed over that of `cat`, run by run."""
    gib = sum(path.stat().st_size for path in paths) / 2**30
    rows = []
    for cache in ("cold", "warm"):
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PROGRAMS}
        if cache == "warm":
            run_cat(paths)
        for _ in range(runs):
            for name, program in PROGRAMS.items():
                if cache == "cold":
                    drop_cache(paths)
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds, peak = program(paths)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                taken[name].append((seconds, peak, cpu))
        for name, values in taken.items():
            times = [value[0] for value in values]
            ratios = [cat[0] / one for cat, one in zip(taken["cat"], times, strict=True)]
            rows.append(
                {
                    "program": name,
                    "cache": cache,
                    "gib": round(gib, 2),
                    "runs": runs,
                    "median_s": round(statistics.median(times), 3),
                    "cpu_s": round(statistics.median(value[2] for value in values), 3),
                    "gib_per_s": round(gib / statistics.median(times), 2),
                    "of_cat": round(statistics.median(ratios), 2),
                    "of_cat_lowest": round(min(ratios), 2),
                    "of_cat_highest": round(max(ratios), 2),
                    "peak_memory_mib": round(max(value[1] for value in values)),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=2.0, help="bytes with values, in both models together")
    parser.add_argument("--quick", action="store_true", help="200 MiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the pair is written and removed again (default: temporary)")
    parser.add_argument("--child", nargs="+", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--program", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        work(given.program, given.child)
        return
    gib = QUICK_GIB if given.quick else given.gib
    with tempfile.TemporaryDirectory(dir=given.folder) as top:
        pair = [write_model(Path(top) / name, 0, int(gib / 2 * 2**30)) for name in ("model", "copy")]
        rows = measure([*pair[0], *pair[1]], given.runs)
    where = record.machine(["nacre", "numpy"])
    record.append("audit_speed", [{**where, **row} for row in rows])
    for row in rows:
        print(
            f"{row['cache']}  {row['program']:14} {row['gib_per_s']:6.2f} GiB/s  {row['of_cat']:.2f} of cat "
            f"({row['of_cat_lowest']:.2f} to {row['of_cat_highest']:.2f})  peak {row['peak_memory_mib']} MiB"
        )


if __name__ == "__main__":
    main()
