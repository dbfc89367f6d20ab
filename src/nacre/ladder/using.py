"""A rung put to use: answers to plain texts, and its folder written out whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nacre.data.words import token_spans
from nacre.engine.room import EngineRoom
from nacre.errors import DataError, ReferenceNotFound, UsageError, closest
from nacre.lineage.durable import sync_tree
from nacre.lineage.store import Resolved, Store
from nacre.metrics.entities import entities_of
from nacre.tiers.rung import RUNG_FILE, TIERS, Answer, open_rung, read_manifest
from nacre.tiers.task import Row


def is_rung(folder: Path) -> bool:
    """Whether a folder is a solved task."""
    return (folder / RUNG_FILE).is_file()


def answer_texts(folder: Path, texts: Sequence[str], engines: EngineRoom, *, top: int = 3) -> list[dict[str, Any]]:
    """What a rung says to each text: a `label`, `entities`, an `output` or `ranked` ids, and citations if it has them.

    An answer that could not be used is None with the `problem`. Raises DataError for an empty text.
    """
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"text {number} is empty", remedy="give a text, or drop empty lines")
    kind = read_manifest(folder).kind
    spans = [token_spans(text) if kind == "tag" else [] for text in texts]
    rows = [_row(str(n), kind, text, found) for n, (text, found) in enumerate(zip(texts, spans, strict=True), 1)]
    with closing(open_rung(folder, engines)) as rung:
        answers = rung.answer(rows)
    told = zip(texts, spans, answers, strict=True)
    return [{"text": text, **_value(kind, text, found, one, top), **_extras(one)} for text, found, one in told]


def _row(number: str, kind: str, text: str, spans: Sequence[tuple[int, int]]) -> Row:
    if kind == "tag":
        return {"id": number, "tokens": [text[start:end] for start, end in spans], "tags": ["O"] * len(spans)}
    return {"id": number, {"classify": "text", "generate": "source", "rank": "query"}[kind]: text}


def _value(kind: str, text: str, spans: Sequence[tuple[int, int]], answer: Answer, top: int) -> dict[str, Any]:
    if kind == "tag":
        return {"entities": entities_of(text, spans, answer.value or ["O"] * len(spans))}
    if kind == "generate":
        return {"output": answer.value}
    if kind == "rank":
        return {"ranked": list(answer.value or [])[:top]}
    likeliest = sorted(answer.scores.items(), key=lambda item: (-item[1], item[0]))[:top]
    return {
        "label": answer.value,
        "top": [{"label": name, "probability": round(float(score), 4)} for name, score in likeliest],
    }


def _extras(answer: Answer) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if answer.problem:
        extras |= {"problem": answer.problem, "raw": answer.raw}
    if answer.citations:
        extras["citations"] = [asdict(one) for one in answer.citations]
    if answer.served_by:
        extras["served_by"] = answer.served_by
    return extras


def find(store: Store, task: str, tier: str) -> Resolved:
    """The newest rung of a task at a tier. Raises ReferenceNotFound where the ladder has not made it."""
    if tier not in TIERS:
        raise UsageError(f"no tier {tier!r}", remedy=closest(tier, TIERS))
    name = f"ladder/{task}/{tier}"
    if not store.versions(name):
        made = [one for one in TIERS if store.versions(f"ladder/{task}/{one}")]
        raise ReferenceNotFound(
            f"the tier {tier} of {task} is not in the store {store.root / 'store'}",
            remedy=f"made so far: {', '.join(made)}" if made else f"run `nacre ladder` on {task} first",
        )
    return store.resolve(name)


def export(store: Store, rung: Resolved, folder: Path) -> Path:
    """Copies a rung, its lineage included, to a new folder that needs nothing else; whole or not at all.

    Raises UsageError where `folder` holds something, IntegrityError where the rung has changed since it was made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already", remedy="give a new folder: nothing is overwritten")
    store.verify(rung)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        shutil.copytree(rung.path, part, dirs_exist_ok=True)
        part.chmod(0o755)
        sync_tree(part)
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder
