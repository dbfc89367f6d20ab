"""A student of a fifth of MiniLM's parameters on BANKING77, with a teacher and without: test accuracy."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.data.models import find
from nacre.data.read import read
from nacre.data.tokenizer import Tokenizer
from nacre.data.tokenizer_trim import trimmed
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.shrink import chosen, shrunk
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.classify import Classify, labels_of
from nacre.train.objectives.config import ClassifyConfig
from nacre.train.objectives.config_align import DistilConfig
from nacre.train.objectives.distil import Distil, Teacher

Measure = Callable[[str, str, int, dict[str, np.ndarray], float], Iterator[dict[str, Any]]]
Rows = list[dict[str, Any]]
# As in recipes/distil.yaml, with fewer epochs.
EPOCHS, LAYERS = int(os.environ.get("DISTIL_EPOCHS", "6")), 2
ONLY = os.environ.get("DISTIL_ONLY", "")  # `with` or `without` a teacher
HOW = DistilConfig("forward", temperature=2.0, share=0.9, cache=True)
TEXTS = ClassifyConfig(context=64)


def students(data: Path, seeds: range, measured: Measure) -> Iterator[dict[str, Any]]:
    """Rows of the teacher, then of the student with and without it for each seed. NACRE_TEACHER: a MiniLM tuned
    on the training rows (`nacre run recipes/minilm.yaml --only full`); NACRE_KEPT: a folder for its answers."""
    folder = Path(os.environ["NACRE_TEACHER"])
    kept = Path(os.environ.get("NACRE_KEPT", tempfile.mkdtemp()))
    rows = {split: list(read(data / f"{split}.jsonl")) for split in ("train", "valid", "test")}
    words, teacher = Tokenizer.load(folder), hf.load(folder).float()
    labels = labels_of(rows["train"])
    base, their_words = hf.load(find("minilm")).float(), Tokenizer.load(find("minilm"))
    own, tokens = trimmed(their_words, (row["text"] for row in rows["train"]))
    small = shrunk(base, chosen(LAYERS, base.config.layers, "even"), tokens)
    began = time.monotonic()
    known = kept / "teacher_right.npy"
    if not known.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        np.save(known, right(teacher, Classify(words, teacher.config.labels, TEXTS), rows["test"]))
    teacher_right = np.load(known)
    yield from measured(
        "distil", f"teacher, {size(teacher):,} parameters", 0, {"accuracy": teacher_right}, time.monotonic() - began
    )
    reads = Classify(words, labels, TEXTS)
    for seed in seeds:
        for taught in [way for way in (True, False) if ONLY in ("", "with" if way else "without")]:
            began = time.monotonic()
            torch.manual_seed(seed)
            kernel = copy.deepcopy(small).with_head("classify", labels=labels, pooling="mean")
            objective: Any = Classify(own, labels, TEXTS)
            if taught:
                objective = Distil(objective, Teacher(teacher, words, reads), HOW, folder=kept)
            objective.check(kernel)
            fit(kernel, objective, rows, seed)
            found = right(kernel, Classify(own, labels, TEXTS), rows["test"])
            name = f"student, {size(kernel):,} parameters, {'with' if taught else 'without'} teacher, {EPOCHS} epochs"
            gain = {"accuracy": found, "accuracy_below_teacher": teacher_right - found}
            yield from measured("distil", name, seed, gain, time.monotonic() - began)


def fit(kernel: Kernel, objective: Any, rows: dict[str, Rows], seed: int) -> None:
    config = TrainConfig(epochs=EPOCHS, batch_size=32, lr=5e-4, bucket=True, metric="accuracy", mode="max", seed=seed)
    examples = prepare(objective, rows["train"])
    valid = prepare(objective, rows["valid"], training=False)
    folder = Path(os.environ.get("DISTIL_CHECKPOINTS", tempfile.mkdtemp()))  # of a run that was killed: it goes on
    result = train(kernel, objective, examples, config, valid=valid, folder=folder)
    scores = [round(row["valid_accuracy"], 4) for row in result.history if "valid_accuracy" in row]
    print(f"  {result.steps} steps, {result.tokens / result.seconds:.0f} tokens/s, valid {scores}", flush=True)


def right(kernel: Kernel, objective: Classify, rows: Rows) -> np.ndarray:
    """(N,) 1 where the class is right."""
    examples = prepare(objective, rows, training=False)
    order = sorted(range(len(examples)), key=lambda row: objective.length(examples[row]))
    found = np.zeros(len(examples))
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        batch = objective.collate([examples[row] for row in part], torch.Generator())
        found[part] = (objective.predict(kernel, batch).argmax(-1) == batch.labels).numpy()
    return found


def size(kernel: Kernel) -> int:
    return sum(one.numel() for one in kernel.parameters())
