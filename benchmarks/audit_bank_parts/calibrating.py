"""The table of null statistics that ships with the audit: what probes give for models that share nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nacre.lifecycle.audit as audit_package
from audit_bank_parts import texts
from audit_bank_parts.measure import Row
from audit_bank_parts.plan import Part
from nacre.errors import DataError
from nacre.lineage.durable import write_atomic

TABLE = Path(audit_package.__file__).parent / "calibration.json"


def write(table: Path, part: Part, rows: Sequence[Row], bank: Path) -> None:
    """Writes the sorted statistics of each probe over strangers, with what they were made from."""
    models = sorted({name for row in rows for name in (row["pair"]["source"], row["pair"]["reference"])})
    nulls: dict[str, list[float]] = {}
    for name in sorted({name for row in rows for name in row["statistics"]}):
        values = [row["statistics"].get(name) for row in rows]
        null = sorted(round(value, 6) for value in values if value is not None)
        if null:
            nulls[name] = null
    content = {
        "about": "statistics of pairs that share nothing but design, recipe or tokenizer; sorted",
        "part": part.name,
        "models": len(models),
        "pairs": len(rows),
        "versions": {name: version(name) for name in ("nacre", "torch", "numpy")},
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "made_from": {
            "models": _digest_of(bank / "models" / name / "model.safetensors" for name in models),
            **{f"corpus {corpus}": texts.digest(corpus) for corpus in part.corpora},
        },
        "nulls": nulls,
        "power": [],
    }
    _write(table, content)


def add_power(table: Path, power: list[dict[str, Any]]) -> None:
    """Notes which derivations were caught on the report side; what decides, the nulls, stays."""
    _write(table, {**load(table), "power": power})


def _write(table: Path, content: Mapping[str, Any]) -> None:
    write_atomic(table, (json.dumps(content, sort_keys=True, indent=1) + "\n").encode())


def load(table: Path) -> dict[str, Any]:
    """The table. DataError where there is none."""
    if not table.is_file():
        raise DataError(f"no calibration table at {table}", remedy="run `audit_bank.py calibrate` first")
    content: dict[str, Any] = json.loads(table.read_text(encoding="utf-8"))
    return content


def digest(table: Path) -> str:
    """SHA-256 of the nulls: what verdicts depend on."""
    return hashlib.sha256(json.dumps(load(table)["nulls"], sort_keys=True).encode()).hexdigest()


def _digest_of(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
