"""What a report says about where a model comes from: lineage, training curves, data reports, anatomy. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.kernel.anatomy import anatomy as measure
from nacre.kernel.hf import load_config
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
    # The model's own store: `nacre run --store` may have built it elsewhere than where references are looked up.
    home = next((parent.parent for parent in folder.resolve().parents if parent.name == "store"), None)
    return _ancestor(trace(open_store(home), str(folder)))


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


# Memory at these precisions is what a reader plans with.
_PRECISIONS = ("fp32", "bf16", "int8")


def anatomy(folder: Path) -> Anatomy:
    """Parameters by part, sizes, memory, FLOPs and cache of a model folder, from its config."""
    found = measure(load_config(folder))
    layers = " + ".join(f"{count} {stack}" for stack, count in found.layers.items())
    memory = " · ".join(f"{name} {found.memory_bytes[name] / 2**20:,.1f} MiB" for name in _PRECISIONS)
    flops = " · ".join(f"{name} {count:,}" for name, count in found.flops_per_token.items())
    facts = {
        "family": f"{found.family}, {found.layout}",
        "layers": layers,
        "hidden_size": f"{found.hidden_size:,}",
        "heads": f"{found.heads} / {found.kv_heads}",
        "vocab_size": f"{found.vocab_size:,}",
        "context_length": f"{found.context:,}",
        "parameters": f"{found.total_parameters:,}",
        "memory": memory,
        "flops_per_token": flops,
    }
    cache = found.kv_cache_bytes_per_token.get("bf16", 0)
    facts |= {"cache_per_token": f"bf16 {cache:,} B"} if cache else {}
    return Anatomy([Part(name, count) for name, count in found.parameters.items() if count], facts)
