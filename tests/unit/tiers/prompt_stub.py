"""A small task in a folder, engines, and what a stage is given: what the tests of prompts share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asking_stub import classify_task, write_task

from nacre.data.write import write_jsonl
from nacre.engine.room import EngineRoom
from nacre.recipe.stage import Work
from nacre.tiers.task import Task

LABELS = ("refund", "card", "card_arrival")
TEXTS = {
    "refund": ["give the money back {}", "return my payment {}"],
    "card": ["the plastic is broken {}", "my card is bent {}"],
    "card_arrival": ["where is the new one {}", "it has not come yet {}"],
}


def rows_of(n: int, split: str) -> list[dict[str, Any]]:
    found = []
    for index in range(n):
        label = LABELS[index % 3]
        text = TEXTS[label][index // 3 % 2].format(f"{split} {index}")
        found.append({"id": f"{split}{index}", "text": text, "label": label})
    return found


def task_folder(folder: Path, task: Task | None = None, n_train: int = 30, n_valid: int = 40, **more: Any) -> Path:
    made = write_task(folder, task or classify_task(), rows=more.pop("valid", rows_of(n_valid, "valid")), **more)
    write_jsonl(made / "train.jsonl", rows_of(n_train, "train"))
    # Nobody gives a solver the test rows; one who looked beside the others would find these.
    (made / "test.jsonl").write_text('{"text": "SECRET", "label": "refund"}\n', encoding="utf-8")
    return made


def echo(folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "engine.json").write_text(json.dumps({"engine": "echo", **settings}), encoding="utf-8")
    return folder


def work_of(folder: Path, task: Path, engine: Path, room: EngineRoom | None = None) -> Work:
    out = folder / "rung"
    out.mkdir(parents=True)
    inputs = {"task": task, "engine": engine}
    return Work(inputs, out, folder / "scratch", engines=room or EngineRoom(through_http=False))
