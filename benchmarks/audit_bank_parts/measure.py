"""What the audit says of a pair, kept in one file per pair so that a run can be killed and go on."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nacre.lifecycle.audit as audit_package
from audit_bank_parts import making
from audit_bank_parts.plan import Pair
from nacre.lineage.durable import write_atomic


@dataclass(frozen=True)
class Measured:
    """What was found. `statistics` are values by probe, `p_values` theirs, `tiers` how these are known."""

    statistics: Mapping[str, float | None]
    p_values: Mapping[str, float | None] = field(default_factory=dict)
    tiers: Mapping[str, str] = field(default_factory=dict)
    verdict: str | None = None
    kind: str | None = None
    share: float | None = None
    rank: int | None = None
    p_value: float | None = None
    reason: str | None = None


Measure = Callable[[Path, Path], Measured]
Row = dict[str, Any]


def find(dotted: str) -> Measure:
    """`module:function` to a function of (subject's folder, reference's folder)."""
    module, _, name = dotted.partition(":")
    found: Measure = getattr(importlib.import_module(module), name)
    return found


def code_digest(dotted: str, without: tuple[str, ...] = ()) -> str:
    """SHA-256 over the code of the audit's stages: what was measured by other code is measured again."""
    root, digest = Path(audit_package.__file__).parent, hashlib.sha256(dotted.encode())
    for folder in ("weights", "kernel", "readers"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.read_bytes() if path.name not in without else b"")
    for name in ("canonical.py", "verdict.py", "calibration.py"):
        digest.update((root / name).read_bytes() if (root / name).is_file() else b"")
    return digest.hexdigest()


def measured(pair: Pair, bank: Path, dotted: str, key: str) -> Row:
    """The pair's row, from its file or measured now. `key`: of the code (and calibration) that measures."""
    path = bank / "pairs" / pair.side / f"{pair.name}.json"
    if path.is_file():
        row: Row = json.loads(path.read_text(encoding="utf-8"))
        if row["key"] == key and row["pair"] == json.loads(json.dumps(asdict(pair))):
            return row
    began, cpu = time.perf_counter(), time.process_time()
    row = {"pair": asdict(pair), "key": key, **_measure(pair, bank, find(dotted))}
    row |= {"seconds": round(time.perf_counter() - began, 3), "cpu_seconds": round(time.process_time() - cpu, 3)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(row, ensure_ascii=False) + "\n").encode())
    return row


def _measure(pair: Pair, bank: Path, measure: Measure) -> Row:
    seed = int.from_bytes(hashlib.sha256(pair.name.encode()).digest()[:4]) // 2
    with tempfile.TemporaryDirectory(prefix="bank-") as scratch:
        folder = Path(scratch) / "subject"
        model = making.subject(pair, bank, folder, seed)
        found = measure(folder, bank / "models" / pair.reference)
    cost = making.capability(pair, model, bank)
    about = json.loads((bank / "models" / pair.source / "bank.json").read_text(encoding="utf-8"))["spec"]
    row: Row = {"family": pair.source.partition("+")[0].partition("=")[0], "corpus": about["recipe"]["corpus"]}
    row["loss_rise"] = None if cost is None else cost.rise
    row["counts"] = cost is None or cost.counts
    return row | asdict(found)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process may work on `path`: several can share a bank. The claim ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
