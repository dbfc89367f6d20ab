"""Small tasks as artifacts, and small base models, for tests of solvers that train."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import nacre
from nacre.data.tokenizer import TokenizerConfig, train
from nacre.data.write import write_json, write_jsonl
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.metrics.quality import METRICS

DESK = Path(nacre.__file__).parent / "data" / "desk"
_STYLES = {"bert": ("wordpiece", "bert"), "gpt2": ("bpe", "gpt"), "t5": ("unigram", "t5")}
Rows = Sequence[Mapping[str, Any]]


def desk_rows(language: str | None = None, intents: int = 30, per_intent: int = 99) -> tuple[list[Any], list[Any]]:
    """Rows of the desk's training and test utterances, of the first intents, so many of each for training."""
    kept: dict[str, list[Any]] = {"train": [], "test": []}
    seen: dict[tuple[str, str], int] = {}
    names: list[str] = []
    for number, line in enumerate((DESK / "utterances.jsonl").read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        if row["label"] not in names and len(names) < intents:
            names.append(row["label"])
        key = (row["label"], row["split"])
        if row["label"] not in names or (language and row["lang"] != language):
            continue
        seen[key] = seen.get(key, 0) + 1
        if row["split"] == "test" or seen[key] <= per_intent:
            kept[row["split"]].append({"id": f"u{number}", "text": row["text"], "label": row["label"]})
    return kept["train"], kept["test"]


def make_task(folder: Path, kind: str, train_rows: Rows, valid: Rows, **more: Any) -> Path:
    """A task artifact with these rows; `corpus`, `labels` and the fields of `task.json` may be given."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", train_rows)
    if valid:
        write_jsonl(folder / "valid.jsonl", valid)
    if "corpus" in more:
        write_jsonl(folder / "corpus.jsonl", more.pop("corpus"))
    labels = sorted({row["label"] for row in [*train_rows, *valid]}) if kind == "classify" else []
    plain = {
        "name": "small",
        "kind": kind,
        "about": "A small task.",
        "metric": METRICS[kind][0],  # type: ignore[index]
        "language": "en",
        "target_language": "",
        "labels": labels,
        "descriptions": {},
        "languages": ["en", "zh"],
    }
    write_json(folder / "task.json", plain | more)
    return folder


def base_model(folder: Path, family: str, texts: Sequence[str], **choices: Any) -> Path:
    """A model of two small layers with random weights and a tokenizer of these texts."""
    algorithm, style = _STYLES[family]
    words = train(texts, TokenizerConfig(algorithm=algorithm, vocab_size=600, style=style), folder)  # type: ignore[arg-type]
    sizes: dict[str, Any] = {"vocab_size": len(words), "hidden_size": 32, "layers": 2, "heads": 4, "max_positions": 64}
    sizes |= {"pad_id": words.pad_id, "bos_id": words.bos_id, "eos_id": words.eos_id}
    sizes |= {"head_dim": 8, "decoder_start_id": words.pad_id} if family == "t5" else {}
    config = preset(family, **sizes | {"dropout": 0.0, "attention_dropout": 0.0} | choices)
    hf.save(Kernel(config, torch.Generator().manual_seed(0)), folder)
    return folder
