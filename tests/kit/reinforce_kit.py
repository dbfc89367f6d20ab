"""A pico policy over digits, and runs of reinforcement on it that take seconds."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.engine.room import EngineRoom
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.recipe.catalogue import find
from nacre.recipe.config import build
from nacre.recipe.stage import Work
from nacre.train.config import TrainConfig
from nacre.train.loop import train as train_kernel
from nacre.train.objective import prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig

SAYS_HIGH = {"format": {"pattern": "[5-9].*"}}


@cache
def tokenizer() -> Tokenizer:
    """Every byte a token."""
    with TemporaryDirectory() as folder:
        return train(["0123456789+-="], TokenizerConfig("bpe", 272, "llama", sentinels=0), Path(folder))


def model(folder: Path, name: str = "llama2", **changes: Any) -> Path:
    """A kernel with its tokenizer: fresh, or where nothing is changed the one that `chatters`."""
    words = tokenizer()
    ids = {"bos_id": words.bos_id, "eos_id": words.eos_id, "pad_id": words.pad_id}
    sizes = {"hidden_size": 32, "heads": 2, "layers": 1, "vocab_size": len(words), "head": "lm"}
    more = {"decoder_start_id": words.pad_id, "head_dim": 16} if name == "t5" else {"max_positions": 48}
    if name == "llama2" and not changes:
        kernel = chatters()
    else:
        kernel = Kernel(preset(name, **{**sizes, **ids, **more, **changes}), torch.Generator().manual_seed(0))
    hf.save(kernel, folder)
    words.save(folder)
    return folder


@cache
def chatters() -> Kernel:
    """A kernel that answers sums with a few digits and signs, right or wrong, and ends."""
    words, rng = tokenizer(), random.Random(0)
    config = preset(
        "llama2", hidden_size=32, heads=2, layers=1, vocab_size=len(words), max_positions=48, head="lm",
        bos_id=words.bos_id, eos_id=words.eos_id, pad_id=words.pad_id,
    )  # fmt: skip
    kernel = Kernel(config, torch.Generator().manual_seed(0))
    rows = [
        {"source": f"{a}+{b}=", "target": "".join(rng.choices("0123456789+-", k=rng.randint(1, 2)))}
        for a in range(4)
        for b in range(5)
        for _ in range(10)
    ]
    objective = Causal(words, CausalConfig(context=24, packing="none", count_bytes=False))
    how = TrainConfig(max_steps=60, batch_size=32, lr=1e-2, log_every=60)
    with TemporaryDirectory() as scratch:
        train_kernel(kernel, objective, prepare(objective, rows), how, folder=Path(scratch))
    return kernel


def prompts(folder: Path, rows: list[dict[str, Any]] | None = None, *, valid: bool = False) -> Path:
    """Sums of two digits, with what is expected."""
    sums = [{"source": f"{a}+{b}=", "target": str(a + b)} for a in range(4) for b in range(5)]
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (sums if rows is None else rows))
    for name in ("train", "valid") if valid else ("train",):
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def settings(**changes: Any) -> dict[str, Any]:
    """A few small iterations; nested mappings are merged into."""
    plain: dict[str, Any] = {
        "rewards": SAYS_HIGH,
        "rollouts": {"prompts": 6, "samples": 4, "max_new_tokens": 4},
        "update": {"batch_size": 8, "lr": 3e-3, "epochs": 2},
        "loop": {"iterations": 4, "eval_every": 2},
    }
    for name, value in changes.items():
        merged = isinstance(value, dict) and name in plain and name != "rewards"
        plain[name] = plain[name] | value if merged else value
    return plain


def run(
    place: Path,
    inputs: dict[str, Path],
    method: str = "grpo",
    seed: int = 0,
    engines: EngineRoom | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Runs the stage; its metrics. The artifact is in `place/out`, its scratch in `place/scratch`."""
    step = find(f"tune.{method}")
    config = build(step.config_type, settings(**changes), method)
    out = place / "out"
    out.mkdir(parents=True, exist_ok=True)
    if step.check is not None:
        step.check(config, inputs)
    return dict(step(config, Work(inputs, out, place / "scratch", seed=seed, engines=engines or EngineRoom())))


def history(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((place / "out" / "training.json").read_text(encoding="utf-8"))["history"]
    return found


def rollouts(place: Path) -> list[dict[str, Any]]:
    lines = (place / "out" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
