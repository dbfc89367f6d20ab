"""Families of models that recipes build, and what an audit of the weights alone says of two of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from nacre.lifecycle.audit.kernel.canonicalise import canonicalise
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.verdict import StageVerdict
from nacre.lifecycle.audit.weights.policy import compare
from nacre.recipe.recipe import parse
from nacre.recipe.references import open_store
from nacre.recipe.run import run

DESK = {"stage": "data.prepare", "inputs": {"source": "data:desk/utterances"}, "config": {"splits": "field"}}
TOKENIZER = {
    "stage": "tokenizer.train", "inputs": {"data": "texts"},
    "config": {"algorithm": "bpe", "style": "llama", "vocab_size": 768},
}  # fmt: skip


def pretraining(data: Mapping[str, Any], tokenizer: str, **choices: Any) -> dict[str, Any]:
    """Steps from texts to a pretrained decoder."""
    sizes = {
        "hidden_size": 64, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn_size": 160,
        "tied": False, "max_positions": 128,
    }  # fmt: skip
    return {
        "texts": data,
        "initialise": {
            "stage": "kernel.initialise", "inputs": {"tokenizer": tokenizer},
            "config": {"preset": "llama2", "choices": sizes | choices},
        },
        "pretrain": {
            "stage": "pretrain.causal", "inputs": {"model": "initialise", "data": "texts"},
            "config": {
                "objective": {"context": 64, "packing": "stream"},
                "train": {"max_steps": 90, "batch_size": 16, "lr": 3e-3, "eval_every": 90},
            },
        },
    }  # fmt: skip


def built(name: str, seed: int, steps: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Runs the steps as a recipe; where each one's product lies."""
    recipe = parse({"name": name, "seed": seed, "about": "a family", "steps": steps}, folder, name)
    return {one.step: one.path for one in run(recipe, open_store())}


class Seen(NamedTuple):
    """What an audit says of a subject beside a reference, and how far apart the two are."""

    verdict: StageVerdict
    distance: float


def judge(subject: Path, reference: Path, base: Path | None = None) -> Seen:
    """The audit of the weights of two folders that say nothing of themselves; `base` if it is an adapter."""
    a, b = open_subject(subject, base=base), open_subject(reference)
    assert a.record is None
    assert b.record is None
    verdict = compare(a, b, canonicalise(a), canonicalise(b))
    apart = [one["relative"] for one in verdict.detail.get("delta", ()) if one["layer"] is not None]
    return Seen(verdict, median(apart) if apart else float("inf"))
