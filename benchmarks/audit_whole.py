"""How long a whole audit takes, and in how much memory, beside loading the same pair with transformers.

python benchmarks/audit_whole.py [--runs 3] [--layers 32] [--only small|large] [--folder DIR]

Small: two checkpoints of about 100 MB in float32, one tuned from the other, and one unrelated to it. Large: two of a 7B
model's shapes in bfloat16 with `--layers` layers, as `audit_speed.py` writes them: the first layers hold values, the
rest are sparse files. Each run is a process of its own, whose peak memory is read at its end; files are in the
system's cache. Seconds of CPU count the imports as well, and do not grow with what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import audit_speed
import record

HIDDEN, FFN, VOCABULARY, LAYERS = 512, 1376, 8192, 6
REAL_BYTES = 1 << 30  # of each large checkpoint


def small(folder: Path, seed: int, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Writes a checkpoint of Llama's design; with `base` one that differs from it as a tuned one does."""
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }  # fmt: skip
    for layer in range(LAYERS):
        lead = f"model.layers.{layer}."
        shapes |= {f"{lead}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{lead}mlp.{name}_proj.weight": (FFN, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{lead}mlp.down_proj.weight": (HIDDEN, FFN)}
        shapes |= {f"{lead}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    tensors = {}
    for name, shape in shapes.items():
        drawn = draw.standard_normal(shape).astype(np.float32) * 0.02
        tensors[name] = (1 + drawn if len(shape) == 1 else drawn) if base is None else base[name] + 0.1 * drawn
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": LAYERS, "num_attention_heads": 8, "vocab_size": VOCABULARY,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def child(program: str, pair: list[Path]) -> None:
    """The measured work of one process."""
    began = time.perf_counter()
    told = "loaded"
    if program == "transformers":
        from transformers import AutoModelForCausalLM

        models = [AutoModelForCausalLM.from_pretrained(one) for one in pair]
        told = f"loaded {sum(one.num_parameters() for one in models):,} parameters"
    else:
        from nacre.lifecycle.audit.audit import audit

        [found] = audit(pair[0], [pair[1]])
        told = f"{found.verdict}: {found.stages['weights'].text}"
    seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "peak_mib": peak, "told": told}))


def measure(case: str, pair: list[Path], programs: list[str], runs: int) -> list[dict[str, Any]]:
    """A row for each program, run in turns."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(runs):
        for name in programs:
            command = [sys.executable, __file__, "--child", name, *map(str, pair)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            taken[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for name, values in taken.items():
        seconds = [value["seconds"] for value in values]
        rows.append(
            {
                "case": case,
                "program": name,
                "runs": runs,
                "median_s": round(statistics.median(seconds), 2),
                "lowest_s": round(min(seconds), 2),
                "highest_s": round(max(seconds), 2),
                "median_cpu_s": round(statistics.median(value["cpu"] for value in values), 2),
                "peak_memory_mib": round(max(value["peak_mib"] for value in values)),
                "told": values[0]["told"][:160],
            }
        )
    return rows


def measured(top: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases asked for."""
    rows: list[dict[str, Any]] = []
    if given.only in (None, "small"):
        base = small(top / "base", 1)
        small(top / "tuned", 2, base)
        small(top / "stranger", 3)
        size = f"{(top / 'base' / 'model.safetensors').stat().st_size / 1e6:.0f} MB"
        rows += measure(f"{size}, tuned", [top / "tuned", top / "base"], ["nacre audit", "transformers"], given.runs)
        rows += measure(f"{size}, stranger", [top / "stranger", top / "base"], ["nacre audit"], given.runs)
    if given.only in (None, "large"):
        audit_speed.LAYERS = given.layers
        pair = [top / "large-a", top / "large-b"]
        for seed, one in enumerate(pair):
            audit_speed.write_model(one, seed, REAL_BYTES)
        rows += measure(f"7B shapes, {given.layers} layers, bf16", pair, ["nacre audit"], 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=32, help="of the large pair")
    parser.add_argument("--only", choices=("small", "large"))
    parser.add_argument(
        "--folder", type=Path, help="where the pairs are written and removed again (default: temporary)"
    )
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], [Path(one) for one in given.child[1:]])
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as top:
        rows = measured(Path(top), given)
    where = record.machine(["nacre", "numpy", "transformers"])
    record.append("audit_whole", [{**where, **row} for row in rows])
    for row in rows:
        taken = f"{row['median_s']:7.2f} s ({row['median_cpu_s']:.2f} of CPU)"
        print(f"{row['case']:28} {row['program']:13} {taken}  peak {row['peak_memory_mib']:5} MiB  {row['told']}")


if __name__ == "__main__":
    main()
