"""GRPO and PPO on arithmetic: a small decoder that was taught sums by a bad teacher is rewarded for right answers."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.data.tokenizer import Tokenizer, TokenizerConfig
from nacre.data.tokenizer import train as train_tokenizer
from nacre.kernel import hf
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.kernel.sampling import SamplingConfig
from nacre.progress import Terminal
from nacre.recipe.catalogue import find
from nacre.recipe.config import build
from nacre.recipe.stage import Work
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig

Measure = Callable[[str, str, int, dict[str, np.ndarray], float], Iterator[dict[str, Any]]]
Row = dict[str, str]

LARGEST, HELD_OUT, TOKENS = 20, 160, 5
TAUGHT = 12  # answers of the teacher to each prompt
RIGHT, NEXT = 0.12, 0.7  # shares of the teacher's answers: right, one too high; the rest is off by up to 5
SHARED: dict[str, Any] = {
    "rewards": {"exact": {}},
    "update": {"batch_size": 160, "lr": 5e-4, "schedule": "linear", "epochs": 2},
    "kl": {"coefficient": 0.01},
    "loop": {"iterations": 500, "eval_every": 50, "checkpoint_every": 250},
}
METHODS: dict[str, dict[str, Any]] = {
    "grpo": SHARED | {"rollouts": {"prompts": 40, "samples": 8, "max_new_tokens": TOKENS, "batch": 320}},
    "ppo": SHARED | {"rollouts": {"prompts": 320, "samples": 1, "max_new_tokens": TOKENS, "batch": 320}},
}


def sums(seed: int) -> tuple[list[Row], list[Row]]:
    """All additions and subtractions of numbers below 20, apart from those held out: (train, held out)."""
    numbers = range(LARGEST)
    rows = [
        {"source": f"{a}{sign}{b}=", "target": str(a + b if sign == "+" else a - b)}
        for a in numbers for b in numbers for sign in "+-"
    ]  # fmt: skip
    random.Random(seed).shuffle(rows)
    return rows[HELD_OUT:], rows[:HELD_OUT]


def badly_taught(rows: list[Row], seed: int) -> list[Row]:
    """What a teacher says who is seldom right."""
    rng, found = random.Random(seed), []
    for row in rows:
        for _ in range(TAUGHT):
            luck = rng.random()
            off = 0 if luck < RIGHT else 1 if luck < RIGHT + NEXT else rng.choice([-5, -4, -3, -2, -1, 2, 3, 4, 5])
            found.append({"source": row["source"], "target": str(int(row["target"]) + off)})
    return found


def base(folder: Path, rows: list[Row], seed: int) -> None:
    """A decoder of some 0.3 million parameters taught by the bad teacher."""
    tokenizer = train_tokenizer(["0123456789+-="], TokenizerConfig("bpe", 272, "llama", sentinels=0), folder)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    sizes = {"hidden_size": 96, "heads": 4, "layers": 2, "max_positions": 32, "vocab_size": len(tokenizer)}
    kernel = Kernel(preset("llama2", **sizes | ids, head="lm"), torch.Generator().manual_seed(seed))
    objective = Causal(tokenizer, CausalConfig(context=24, packing="none", count_bytes=False))
    how = TrainConfig(max_steps=1500, batch_size=64, lr=2e-3, schedule="cosine", log_every=250, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        train(kernel, objective, prepare(objective, badly_taught(rows, seed)), how, folder=Path(scratch))
    hf.save(kernel, folder)
    tokenizer.save(folder)
    print(f"base: {sum(one.numel() for one in kernel.parameters()):,} parameters", flush=True)


def right(folder: Path, rows: list[Row], temperature: float) -> np.ndarray:
    """(N,) whether each held-out sum is right, answered greedily (0) or drawn."""
    kernel, tokenizer = hf.load(folder), Tokenizer.load(folder)
    prompts = [[tokenizer.bos_id or 0, *tokenizer.encode(row["source"], add_special=False)] for row in rows]
    config = GenerationConfig(TOKENS, SamplingConfig(temperature))
    found = generate(kernel, prompts, config, decode=tokenizer.decode)
    said = zip(found, rows, strict=True)
    return np.array([one.stopped == "end" and (one.text or "").strip() == row["target"] for one, row in said], float)


def lifted(seeds: int, measured: Measure, methods: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[Row]:
    """Rows of the base and of each method from it: with each seed another base, other data, other held-out sums."""
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            kept, held = sums(seed)
            began = time.process_time()
            base(root / "base", kept, seed)
            yield from scored(measured, "base", seed, root / "base", held, time.process_time() - began)
            (root / "data").mkdir()
            for name, rows in (("train", kept), ("valid", held)):
                text = "".join(json.dumps(row) + "\n" for row in rows)
                (root / "data" / f"{name}.jsonl").write_text(text, encoding="utf-8")
            for method, config in (methods or METHODS).items():
                began, out = time.process_time(), root / method
                out.mkdir()
                step = find(f"tune.{method}")
                inputs = {"model": root / "base", "data": root / "data"}
                work = Work(inputs, out, root / f"{method}-scratch", seed, Terminal(method))
                metrics = step(build(step.config_type, config, method), work)
                spent = time.process_time() - began
                print(method, seed, round(spent, 1), dict(metrics), flush=True)
                history = json.loads((out / "training.json").read_text(encoding="utf-8"))["history"]
                looks = [(row["iteration"], row["valid_exact"]) for row in history if "valid_exact" in row]
                print(looks, flush=True)
                yield from scored(measured, method, seed, out, held, spent)


def scored(
    measured: Measure, setting: str, seed: int, folder: Path, held: list[Row], spent: float
) -> Iterator[dict[str, Any]]:
    """`spent` is CPU time: the machine may be shared."""
    found = {
        "exact_match": right(folder, held, 0.0),
        "exact_match_drawn": right(folder, held, 1.0),
        "cpu_seconds": np.array([spent]),
    }
    yield from measured("reinforce", setting, seed, found, spent)
