"""What is known of a tier alone: from the records of its rung and of its answers to a row of the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.engine.prices import Prices
from nacre.ladder.ownership import ownership
from nacre.ladder.result import CostBasis, Row
from nacre.ladder.steps import Ground, Solved
from nacre.tiers.rung import ENGINE_FOLDER, read_manifest


def row(ground: Ground, number: int, tier: str, solved: Sequence[Solved], language: str) -> Row:
    """The row of a tier, its score and comparison left open. Build time and parameters are those of one seed."""
    first = solved[0]
    manifest = read_manifest(first.rung.path)
    record, found = first.rung.record, first.answers.record.metrics
    cost, basis = cost_per_1k(found, ground.file.prices, calls_out=is_called(first.rung.path))
    return Row(
        tier=number,
        name=tier,
        solver=manifest.solver,
        latency_ms_p50=found.get("latency_ms_p50"),
        latency_ms_p95=found.get("latency_ms_p95"),
        latency_examples=found.get("latency_rows"),
        cost_per_1k=cost,
        cost_basis=basis,
        build_seconds=record.cost.seconds,
        peak_memory_mib=record.cost.peak_memory_mib,
        trained_parameters=manifest.trained_parameters,
        owns=ownership(ground.store, first.rung.ref, manifest, language),
        lineage=first.rung.ref,
        problems={name[len("problem_") :]: int(n) for name, n in found.items() if name.startswith("problem_")},
        served_by=tuple(str(found["served_by"]).split(", ")) if found.get("served_by") else (),
        usage={name: found[name] for name in found if name.endswith("_per_row")},
        folder=str(first.rung.path),
    )


def is_called(rung: Path) -> bool:
    """Whether a rung calls a model that runs elsewhere: then a price per token counts, not this machine's time."""
    file = rung / ENGINE_FOLDER / "engine.json"
    if not file.is_file():
        return False
    address = json.loads(file.read_text(encoding="utf-8")).get("address")
    return isinstance(address, str)


def cost_per_1k(found: Mapping[str, Any], prices: Prices, *, calls_out: bool) -> tuple[float | None, CostBasis]:
    """Money for 1,000 requests, one at a time: of the tokens that are called for, else of this machine's time.

    None where a price or a count is not known.
    """
    if "latency_ms_mean" not in found:
        return None, "unknown"
    if not calls_out:
        money = prices.of_seconds(float(found["latency_ms_mean"]))  # 1,000 requests of so many milliseconds each
        return money, "unknown" if money is None else "machine"
    tokens = {
        "read_tokens_per_row": prices.input_per_million,
        "written_tokens_per_row": prices.output_per_million,
        "embedded_tokens_per_row": prices.embedding_per_million,
    }
    used = {name: (float(found[name]), price) for name, price in tokens.items() if found[name]}
    if found["uncounted_calls"] or not used or any(price is None for _, price in used.values()):
        return None, "unknown"
    return sum(1000 * n * (price or 0.0) / 1e6 for n, price in used.values()), "tokens"
