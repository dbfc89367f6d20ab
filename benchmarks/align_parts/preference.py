"""DPO and a reward model on preference pairs: a small decoder is taught the chosen answers first."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.data.chat import shipped
from nacre.data.chat.template import ChatTemplate
from nacre.data.read import read
from nacre.data.tokenizer import TokenizerConfig
from nacre.data.tokenizer import train as train_tokenizer
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.config_align import PreferenceConfig, RewardConfig, SftConfig
from nacre.train.objectives.preference import Preference
from nacre.train.objectives.reference import Reference
from nacre.train.objectives.reward import LABELS, Reward
from nacre.train.objectives.sft import Sft

CONTEXT, BETA = 160, 0.1
Measure = Callable[[str, str, int, dict[str, np.ndarray], float], Iterator[dict[str, Any]]]


def dpo(data: Path, seeds: int, measured: Measure, per_token: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the base, then of DPO from it with each seed. Rewards of a whole answer favour short answers where all
    become less likely: `shorter` is what that alone would score."""
    rows, template, base = start(data)
    began = time.monotonic()
    judge = objective(template, base)
    valid = prepare(judge, rows["valid"], training=False)
    print("valid:", len(valid), dict(judge.dropped), dict(judge.truncated), flush=True)
    lengths = np.array([[len(side.target) for side in one.sides] for one in valid], dtype=float)
    before = logps(base, judge, valid)
    shorter = {"shorter": (lengths[:, 0] < lengths[:, 1]).astype(float)}
    yield from measured("preference", "base", 0, of_logps(before) | shorter, time.monotonic() - began)
    learner = objective(template, base, per_token)
    examples = prepare(learner, rows["train"])
    for seed in range(seeds):
        began = time.monotonic()
        policy = copy.deepcopy(base)
        fit(policy, learner, examples, tuned(seed))
        after = logps(policy, judge, valid)
        change = after - before
        rewards = learner.config.strength * (change / lengths if per_token else change)
        found = {
            "margin": rewards[:, 0] - rewards[:, 1],
            "accuracy": (rewards[:, 0] > rewards[:, 1]).astype(float),
            "chosen_change_nats": change[:, 0],
            **of_logps(after),
        }
        yield from measured(
            "preference", "dpo_per_token" if per_token else "dpo", seed, found, time.monotonic() - began
        )


def judges(data: Path, seeds: int, measured: Measure) -> Iterator[dict[str, Any]]:
    """Rows of a reward model from the same base, with each seed."""
    rows, template, base = start(data)
    for seed in range(seeds):
        began = time.monotonic()
        kernel = base.with_head(
            "classify", labels=LABELS, pooling="last", generator=torch.Generator().manual_seed(seed)
        )
        kernel = copy.deepcopy(kernel)
        learner = Reward(template.tokenizer, template, RewardConfig(CONTEXT))
        fit(kernel, learner, prepare(learner, rows["train"]), tuned(seed))
        held = prepare(learner, rows["valid"], training=False)
        parts = [learner.collate(held[at : at + 20], torch.Generator()) for at in range(0, len(held), 20)]
        scores = torch.cat([learner.predict(kernel, batch) for batch in parts]).double().numpy()
        found = {"margin": scores[:, 0] - scores[:, 1], "accuracy": (scores[:, 0] > scores[:, 1]).astype(float)}
        yield from measured("preference", "reward", seed, found, time.monotonic() - began)


def tuned(seed: int) -> TrainConfig:
    return TrainConfig(epochs=1, batch_size=16, bucket=True, lr=2e-4, warmup=0.1, seed=seed)


def start(data: Path) -> tuple[dict[str, list[dict[str, Any]]], ChatTemplate, Kernel]:
    """The rows of both splits, and what all begin from."""
    rows = {split: list(read(data / f"{split}.jsonl.gz")) for split in ("train", "valid")}
    began = time.monotonic()
    template, base = taught(rows["train"])
    size = sum(one.numel() for one in base.parameters())
    print(f"base: {size:,} parameters, {time.monotonic() - began:.0f} s", flush=True)
    return rows, template, base


def taught(rows: list[dict[str, Any]]) -> tuple[ChatTemplate, Kernel]:
    """A decoder that was taught the chosen answers, every token of their conversations at first."""
    texts = [turn["content"] for row in rows for turn in row["prompt"]] + [row["chosen"] for row in rows]
    config = TokenizerConfig(algorithm="bpe", style="llama", vocab_size=2000)
    plain = train_tokenizer(texts, config, Path(tempfile.mkdtemp()))
    template = ChatTemplate.named("chatml", shipped.extended(plain, shipped.lacking("chatml", plain)))
    sizes = {"hidden_size": 128, "layers": 4, "heads": 4, "ffn_size": 320, "tied": True, "max_positions": CONTEXT}
    kernel = Kernel(preset("llama2", vocab_size=len(template.tokenizer), **sizes), torch.Generator().manual_seed(0))
    talks = [{"messages": [*row["prompt"], {"role": "assistant", "content": row["chosen"]}]} for row in rows]
    for trained, epochs, lr in (("all", 2, 2e-3), ("last", 1, 5e-4)):
        sft = Sft(template, SftConfig(CONTEXT, trained=trained))  # type: ignore[arg-type]
        fit(kernel, sft, prepare(sft, talks), TrainConfig(epochs=epochs, batch_size=8, lr=lr))
    return template, kernel


def fit(kernel: Kernel, learner: Any, examples: list[Any], config: TrainConfig) -> None:
    result = train(kernel, learner, examples, config, folder=Path(tempfile.mkdtemp()))
    last = {name: round(value, 4) for name, value in result.history[-1].items()}
    print(
        f"  {type(learner).__name__}: {result.steps} steps, {result.tokens / result.seconds:.0f} tokens/s, {last}",
        flush=True,
    )


def objective(template: ChatTemplate, base: Kernel, per_token: bool = False) -> Preference:
    """An answer has some hundred tokens: per token beta is that much larger."""
    config = PreferenceConfig("dpo", BETA * (100 if per_token else 1), normalise=per_token, context=CONTEXT)
    return Preference(template.tokenizer, template, config, reference=Reference(base))


def logps(kernel: Kernel, judge: Preference, examples: list[Any]) -> np.ndarray:
    """(N, 2) nats of the chosen and the rejected answers."""
    reference = Reference(kernel)
    flat = [side for one in examples for side in one.sides]
    return reference.logps(flat, judge._sides).reshape(-1, 2).astype(float)


def of_logps(found: np.ndarray) -> dict[str, np.ndarray]:
    gap = found[:, 0] - found[:, 1]
    return {"logp_gap_nats": gap, "likelier": (gap > 0).astype(float)}
