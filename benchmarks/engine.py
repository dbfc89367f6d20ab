"""Engine speed: `native` against `transformers`, the same weights, the same texts, in turns in one process.

    python benchmarks/engine.py [--model FOLDER] [--texts 256] [--rounds 3] [--threads N]

Embedding: utterances of mixed lengths through a sentence encoder (MiniLM), in length-sorted batches, against
batches of the same size in the order given, with padding to the longest of each, as a plain loop over the model's own
classes does it; and against the same loop with sorted texts, to tell sorting from the rest. In bfloat16 as well where
the processor multiplies in it. Generation: a random Llama-shaped decoder of about 15M parameters, 8 prompts, 64 new
tokens, greedy, against `model.generate`. A ratio compares runs of one round. CPU seconds are those of the process: on
a shared machine only they can be compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import record
from nacre.data.read import read
from nacre.data.tokenizer import Tokenizer
from nacre.engine.native import Native
from nacre.kernel import hf
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.kernel.sampling import SamplingConfig
from nacre.train.precision import multiplies_in_bfloat16

BATCH, PROMPTS, NEW_TOKENS, PROMPT_TOKENS = 32, 8, 64, 24
DECODER = {"hidden_size": 384, "layers": 7, "heads": 6, "ffn_size": 1024, "vocab_size": 4096, "max_positions": 256}
DESK = Path(__file__).parents[1] / "src" / "nacre" / "data" / "desk"


@dataclass(frozen=True)
class Variant:
    """What is timed: `work` returns how many texts or tokens it made."""

    task: str
    name: str
    work: Callable[[], int]


def mixed_texts(count: int) -> list[str]:
    """Utterances of the embedded desk data, every fourth one a paragraph of several: lengths as a product sees them."""
    rows: list[str] = []
    for file in sorted(DESK.rglob("*.jsonl")):
        rows += [str(row["text"]) for row in read(file) if "text" in row]
    if len(rows) < 8:
        raise SystemExit(f"no texts under {DESK}")
    out = []
    for number in range(count):
        one = rows[(number * 7919) % len(rows)]
        more = [rows[(number * 31 + k) % len(rows)] for k in range(2 + number % 9)] if number % 4 == 0 else []
        out.append(" ".join([one, *more]))
    return out


# ---- embedding


def plain_loop(model: Any, tokenizer: Any, texts: Sequence[str], order: Sequence[int]) -> Tensor:
    """Mean of real tokens, length 1: what sentence-transformers does for this model, batch by batch."""
    out = torch.empty(len(texts), model.config.hidden_size)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            rows = list(order[start : start + BATCH])
            batch = tokenizer([texts[row] for row in rows], padding=True, truncation=True, max_length=256,
                              return_tensors="pt")  # fmt: skip
            hidden = model(**batch).last_hidden_state.float()
            weight = batch["attention_mask"].unsqueeze(-1).float()
            pooled = (hidden * weight).sum(1) / weight.sum(1)
            out[rows] = torch.nn.functional.normalize(pooled, dim=-1)
    return out


def embedding_variants(folder: Path, texts: list[str]) -> list[Variant]:
    """The first is the yardstick."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    theirs = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    ours = Native(folder)
    given = list(range(len(texts)))
    ordered = sorted(given, key=lambda row: len(texts[row]))
    difference = (torch.from_numpy(ours.embed(texts).vectors) - plain_loop(theirs, tokenizer, texts, given)).abs().max()
    print(f"largest difference of a component: {float(difference):.1e}")
    if difference > 1e-4:
        raise SystemExit("the vectors differ: nothing to compare")

    def timed(name: str, call: Callable[[], Any]) -> Variant:
        return Variant("embed", name, lambda: (call(), len(texts))[1])

    out = [
        timed("transformers", lambda: plain_loop(theirs, tokenizer, texts, given)),
        timed("transformers, sorted", lambda: plain_loop(theirs, tokenizer, texts, ordered)),
        timed("native", lambda: ours.embed(texts)),
    ]
    if multiplies_in_bfloat16(torch.device("cpu")):
        half = Native(folder)
        half.kernel.to(torch.bfloat16)
        out.append(timed("native, bfloat16", lambda: half.embed(texts)))
    return out


# ---- generation


def generation_variants(folder: Path) -> list[Variant]:
    """Greedy, with the end token out of reach, so that every run writes the same number of tokens."""
    torch.manual_seed(0)
    hf.save(Kernel(preset("llama2", **DECODER, head="lm", eos_id=None, pad_id=0)), folder)
    kernel = hf.load(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    prompts = torch.randint(5, 4000, (PROMPTS, PROMPT_TOKENS))
    config = GenerationConfig(NEW_TOKENS, SamplingConfig(temperature=0.0))
    how = transformers.GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, bos_token_id=None, eos_token_id=None
    )

    def reference() -> Tensor:
        with torch.inference_mode():
            return theirs.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=how)

    mine = [one.ids for one in generate(kernel, prompts.tolist(), config)]
    same = mine == reference()[:, PROMPT_TOKENS:].tolist()
    print(f"greedy answers are the same: {same}; {sum(p.numel() for p in kernel.parameters()) / 1e6:.1f}M parameters")
    count = PROMPTS * NEW_TOKENS
    return [
        Variant("generate", "transformers", lambda: (reference(), count)[1]),
        Variant("generate", "native", lambda: (generate(kernel, prompts.tolist(), config), count)[1]),
    ]


# ---- rounds


def measure(variants: list[Variant], rounds: int, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Every variant once per round, after one unmeasured run of each; prints ratios to the first."""
    for one in variants:
        one.work()
    rows: list[dict[str, Any]] = []
    speeds: dict[str, list[float]] = {one.name: [] for one in variants}
    cpu_speeds: dict[str, list[float]] = {one.name: [] for one in variants}
    for number in range(rounds):
        for one in variants[number % len(variants) :] + variants[: number % len(variants)]:
            began, cpu = time.perf_counter(), time.process_time()
            n = one.work()
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
            speeds[one.name].append(n / seconds)
            cpu_speeds[one.name].append(n / cpu_seconds)
            rows.append({"task": one.task, "variant": one.name, "round": number, "items": n,
                         "per_second": round(n / seconds, 2), "per_cpu_second": round(n / cpu_seconds, 2),
                         **columns})  # fmt: skip
    first = variants[0].name
    for one in variants:
        ratios = [mine / base for mine, base in zip(speeds[one.name], speeds[first], strict=True)]
        cpu_ratios = [mine / base for mine, base in zip(cpu_speeds[one.name], cpu_speeds[first], strict=True)]
        print(f"{one.task:9} {one.name:22} {record.spread(speeds[one.name])} per s, x{record.spread(ratios)}, "
              f"per CPU second x{record.spread(cpu_ratios)}")  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("~/.cache/nacre/models/minilm-0.1.0").expanduser())
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    columns = record.machine(("torch", "transformers")) | {"threads": args.threads}
    texts = mixed_texts(args.texts)
    lengths = [len(ids) for ids in Tokenizer.load(args.model).encode_batch(texts)]
    print(
        f"{len(texts)} texts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths) / len(lengths):.0f} on average"
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(generation_variants(Path(folder)), args.rounds, columns)
    rows += measure(embedding_variants(args.model, texts), args.rounds, columns)
    print(f"appended to {record.append('engine', rows)}")


if __name__ == "__main__":
    main()
