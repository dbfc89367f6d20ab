"""What is audited: anything of the list below, opened without trusting it.

A Hugging Face folder (safetensors or `.bin`, sharded or not), a lone `config.json`, a weight index, a tokenizer file, a
GGUF file, a LoRA adapter, a JSONL data set, an artifact of the store. What is damaged or hostile becomes the reason why
a stage cannot be tested; it never becomes a traceback, and no pickle is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.lifecycle.audit.tensors import TensorInfo, TensorSource
from nacre.lineage.record import Record


@dataclass(frozen=True)
class Subject:
    """One side of an audit. A part that is not there is None, and `missing[stage]` says why, in a sentence.

    `infos` are tensors known by name at least (an index gives no shapes: then `shape` is empty); `tensors` reads them.
    `base` is where an adapter's base model lies, `made_for` whether the adapter's own digest of the weights it was made
    for is that of `base` (None: it has none, as PEFT's have not, or it was not compared). `record` is its lineage: of
    it a test reads the order of training alone (seed, config, steps; `data/order.py`), never what it says of parents.
    """

    ref: str
    path: Path
    config: Mapping[str, Any] | None = None
    infos: Mapping[str, TensorInfo] = field(default_factory=dict)
    tensors: TensorSource | None = None
    tokenizer: Path | None = None
    data: Path | None = None
    adapter: Mapping[str, Any] | None = None
    base: Path | None = None
    made_for: bool | None = None
    record: Record | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
