"""What a report says about where a model comes from: lineage, training curves, data reports, anatomy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from nacre.lifecycle.evaluate.content import Anatomy, Ancestor, Part, Run
from nacre.lineage import record
from nacre.lineage.digest import RECORD_NAME
from nacre.lineage.graph import Node, trace
from nacre.recipe.references import open_store


def title_of(folder: Path) -> str:
    """`name@version` of an artifact, else the folder's name."""
    return record.read(folder).ref if (folder / RECORD_NAME).is_file() else folder.name


def lineage(folder: Path) -> Ancestor | None:
    """The tree below an artifact; None for a folder without a record, of which nothing is known."""
    if not (folder / RECORD_NAME).is_file():
        return None
    return _ancestor(trace(open_store(), str(folder)))


def _ancestor(node: Node) -> Ancestor:
    # A path names a place on one machine; its last part is what a reader elsewhere can use.
    ref = node.ref if "@" in node.ref or ":" in node.ref else Path(node.ref).name
    return Ancestor(
        ref=node.record.ref if node.record else ref,
        kind=node.kind or "",
        relation=node.relation or "",
        licence=node.licence or "",
        origin=node.origin or "",
        basis=node.basis,
        parents=[_ancestor(parent) for parent in node.parents],
    )


def runs(folder: Path) -> list[Run]:
    """The model's training history: `training.json` (part of the artifact), else `logs/metrics.jsonl`."""
    history = folder / "training.json"
    if history.is_file():
        rows: Sequence[Mapping[str, Any]] = json.loads(history.read_text(encoding="utf-8")).get("history", [])
        return [Run(title_of(folder), rows)] if rows else []
    log = folder / "logs" / "metrics.jsonl"
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines()
        return [Run(title_of(folder), [json.loads(line) for line in lines])]
    return []


def data_reports(data: Path) -> dict[str, Mapping[str, Any]]:
    """`report.json` of a dataset artifact by the artifact's name."""
    path = data / "report.json"
    return {title_of(data): json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}


# The last match wins a tensor; the order is that of the table.
_PARTS = ("embeddings", "attention", "feed-forward", "norms", "head", "other")


def _part_of(name: str) -> str:
    words = name.lower()
    if "norm" in words or ".ln_" in words or ".layer_norm" in words:
        return "norms"
    if any(word in words for word in ("classifier", "lm_head", "score.", "cls.", "pooler")):
        return "head"
    if "embed" in words or ".wte" in words or ".wpe" in words or "shared" in words:
        return "embeddings"
    if "att" in words or "selfattention" in words or "encdecattention" in words:
        return "attention"
    if any(word in words for word in ("mlp", "ffn", "intermediate", "output.dense", "densereludense")):
        return "feed-forward"
    return "other"


def anatomy(folder: Path) -> Anatomy | None:
    """Parameters by part, read from the headers of the weights; None when there are no safetensors."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    sums = dict.fromkeys(_PARTS, 0)
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (an opened file is no mapping)
                sums[_part_of(name)] += prod(tensors.get_slice(name).get_shape())
    total = sum(sums.values())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    facts = {"model_type": str(config.get("model_type", ""))}
    facts |= {key: str(config[key]) for key in ("hidden_size", "num_hidden_layers", "vocab_size") if key in config}
    facts |= {"parameters": f"{total:,}", "float32": f"{total * 4 / 2**20:,.1f} MiB"}
    return Anatomy([Part(name, count) for name, count in sums.items() if count], facts)
