"""A Hugging Face model card written from lineage: what is known, how it is known, and what is not known.

The front matter uses keys of the Hugging Face Hub's model card metadata (`license`, `base_model`, `datasets`, `tags`).
Nothing is invented: what no record states is said to be unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from nacre.errors import ReferenceNotFound
from nacre.lineage.graph import Node

_BASE_RELATIONS = {
    "finetuned_from": "finetune",
    "quantized_from": "quantized",
    "merged_from": "merge",
}
# Identifiers of the Hub for licences that data sets and models commonly state.
_IDENTIFIERS = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc0-1.0": "cc0-1.0",
    "cc by 4.0": "cc-by-4.0",
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc by-nc 4.0": "cc-by-nc-4.0",
    "bsd-3-clause": "bsd-3-clause",
}


def model_card(root: Node) -> str:
    """The text of README.md for a model; raises ReferenceNotFound when the artifact has no record to write from."""
    if root.record is None:
        raise ReferenceNotFound(
            f"{root.ref} has no lineage record", remedy="cards are written from records: give an artifact of a store"
        )
    return "\n".join([*_front_matter(root), "", *_body(root)]) + "\n"


def _front_matter(root: Node) -> Iterator[str]:
    yield "---"
    licence = (root.licence or "").casefold()
    yield f"license: {_IDENTIFIERS.get(licence, 'other' if licence else 'unknown')}"
    if licence and licence not in _IDENTIFIERS:
        yield f"license_name: {json.dumps(root.licence, ensure_ascii=False)}"
    bases = [parent for parent in root.parents if parent.relation in _BASE_RELATIONS]
    if bases:
        yield "base_model:"
        yield from (f"- {json.dumps(base.ref, ensure_ascii=False)}" for base in bases)
        yield f"base_model_relation: {_BASE_RELATIONS[str(bases[0].relation)]}"
    data = dict.fromkeys(node.ref for node in root.walk() if node.kind == "dataset" and not node.parents)
    if data:
        yield "datasets:"
        yield from (f"- {json.dumps(ref, ensure_ascii=False)}" for ref in data)
    yield "tags:\n- nacre"
    yield "---"


def _body(root: Node) -> Iterator[str]:
    record = root.record
    assert record is not None  # checked by model_card
    yield f"# {_escaped(root.ref)}"
    yield f"\nContent digest `{root.digest}`; {root.basis}."
    if record.stage:
        yield f"Made by `{record.stage}` (revision {record.revision}, seed {record.seed}) at {record.created}."
    yield "\n## Lineage\n"
    yield "| artifact | is | relation | digest | how it is known | licence |\n|---|---|---|---|---|---|"
    rows: dict[tuple[str, str | None], str] = {}
    for node in root.walk():
        cells = [node.ref, node.kind or "raw", node.relation or "this", (node.digest or "unknown")[:19], node.basis]
        rows.setdefault((node.ref, node.relation), " | ".join(map(_escaped, [*cells, node.licence or "none stated"])))
    yield from (f"| {row} |" for row in rows.values())
    if record.metrics:
        yield "\n## Metrics\n\n| metric | value |\n|---|---|"
        yield from (f"| {_escaped(name)} | {value} |" for name, value in record.metrics.items())
    if record.config:
        yield f"\n## Configuration\n\n```json\n{json.dumps(record.config, ensure_ascii=False, indent=2)}\n```"
    warnings = root.all_warnings()
    yield "\n## What to know before use\n"
    yield from (f"- {_escaped(one.text)}" for one in warnings)
    if not warnings:
        yield "Nothing in the lineage asks for attention."


def _escaped(text: str) -> str:
    """Markdown that shows `text` as it is, inside a table too."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", " ".join(text.split()))
