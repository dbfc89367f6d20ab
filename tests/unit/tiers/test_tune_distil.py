"""Shrinking and distilling through recipes: what is written, what lineage says, what is refused before work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_kit import CHATS, template
from objective_kit import CHINESE, ENGLISH, kernel, tokenizer

from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lineage.store import Store
from nacre.recipe import recipe, run

RECIPE = """
name: taught
steps:
  teacher:
    stage: tune.classify
    inputs: {{model: {model}, data: {data}}}
    config: {{train: {{max_steps: 4, batch_size: 4}}, objective: {{context: 32}}}}
  small:
    stage: kernel.shrink
    inputs: {{model: {model}, data: {data}}}
    config: {{layers: 1, vocabulary: {vocabulary}}}
  student:
    stage: tune.distil
    inputs: {{student: small, teacher: teacher, data: {data}}}
    config:
      lesson: {lesson}
      distil: {distil}
      train: {{max_steps: 4, batch_size: 4, micro_batch: 2{train}}}
"""


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    model, data = tmp_path / "model", tmp_path / "data"
    hf.save(kernel("bert", "none", dropout=0.1), model)
    tokenizer("bert").save(model)
    data.mkdir()
    rows = [{"text": one, "label": name} for texts, name in ((ENGLISH, "en"), (CHINESE, "zh")) for one in texts]
    for part in ("train", "valid"):
        (data / f"{part}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (data / "labels.json").write_text('["en", "zh"]')
    return model, data


def ran(tmp_path: Path, parts: tuple[Path, Path], **given: Any) -> Store:
    plain = {"vocabulary": "all", "lesson": "{classify: {context: 32}}", "distil": "{}", "train": ""}
    file = tmp_path / "taught.yaml"
    file.write_text(RECIPE.format(model=parts[0], data=parts[1], **(plain | given)))
    store = Store(tmp_path / "store")
    run.run(recipe.load(file), store)
    return store


@pytest.mark.parametrize(
    ("vocabulary", "distil"),
    [
        ("all", "{direction: reverse, hidden: {layers: {'0': 1}, kind: cosine}}"),
        ("all", "{hidden: {layers: last}}"),
        ("rows", "{cache: true, direction: jensen}"),
    ],
)
def test_a_student_is_taught_and_traced(tmp_path: Path, parts: tuple[Path, Path], vocabulary: str, distil: str) -> None:
    store = ran(tmp_path, parts, vocabulary=vocabulary, distil=distil)
    student = store.resolve("taught/student")
    assert student.record is not None
    assert {one.relation for one in student.record.parents} == {"finetuned_from", "distilled_from", "trained_on"}
    kept = hf.load(student.path)
    assert kept.config.layers == 1
    assert kept.config.labels == ("en", "zh")
    assert not any("projections" in name for name in kept.state_dict())
    small = store.resolve("taught/small")
    assert (student.path / "tokenizer.json").read_bytes() == (small.path / "tokenizer.json").read_bytes()
    history = json.loads((student.path / "training.json").read_text())["history"]
    assert {"soft", "hard", "agreement"} <= {name for row in history for name in row}
    assert student.record.metrics["student_parameters"] < student.record.metrics["teacher_parameters"]
    teacher = store.resolve("taught/teacher")
    assert teacher.record is not None
    assert student.record.cost.flops is not None


def test_widths_may_differ(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    narrow = tmp_path / "narrow"
    hf.save(kernel("bert", "none", hidden_size=16, heads=2), narrow)
    tokenizer("bert").save(narrow)
    recipe_text = RECIPE.replace("student: small", f"student: {narrow}")
    given = {"vocabulary": "all", "lesson": "{classify: {context: 32}}", "distil": "{hidden: {}}", "train": ""}
    file = tmp_path / "taught.yaml"
    file.write_text(recipe_text.format(model=parts[0], data=parts[1], **given))
    store = Store(tmp_path / "store")
    run.run(recipe.load(file), store)
    assert hf.load(store.resolve("taught/student").path).config.hidden_size == 16


def test_the_teacher_is_left_as_it_was(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    store = ran(tmp_path, parts)
    teacher = store.resolve("taught/teacher")
    assert teacher.record is not None
    before = {name: tensor.clone() for name, tensor in hf.load(teacher.path).state_dict().items()}
    ran(tmp_path, parts, distil="{share: 0.7}")
    assert all(torch.equal(tensor, before[name]) for name, tensor in hf.load(teacher.path).state_dict().items())


def test_what_cannot_be_taught_is_told(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="another vocabulary"):
        ran(tmp_path, parts, vocabulary="rows")
    with pytest.raises(ConfigError, match="has the head 'classify'; tag is taught"):
        ran(tmp_path, parts, lesson="{tag: {}}")
    with pytest.raises(ConfigError, match="classify and tag"):
        ran(tmp_path, parts, lesson="{tag: {}, classify: {}}")
    with pytest.raises(ConfigError, match="not compiled"):
        ran(tmp_path, parts, train=", compile: true")


TALKS = """
name: talks
steps:
  student:
    stage: tune.distil
    inputs: {{student: {student}, teacher: {teacher}, data: {data}}}
    config:
      lesson: {{sft: {{context: 96}}}}
      distil: {{direction: jensen, on_policy: {{share: 0.7, max_new_tokens: 6}}}}
      train: {{max_steps: 12, batch_size: 4, micro_batch: 2}}
"""


def test_a_writer_learns_from_what_it_writes(tmp_path: Path) -> None:
    chat = template("chatml")
    sizes = {"vocab_size": len(chat.tokenizer), "hidden_size": 32, "heads": 4, "max_positions": 128}
    ids = {"pad_id": chat.tokenizer.pad_id, "eos_id": chat.tokenizer.eos_id, "bos_id": chat.tokenizer.bos_id}
    for seed, (name, layers) in enumerate((("teacher", 2), ("student", 1))):
        made = Kernel(preset("llama2", **sizes | ids, layers=layers, head="lm"), torch.Generator().manual_seed(seed))
        hf.save(made, tmp_path / name)
        chat.tokenizer.save(tmp_path / name)
        (tmp_path / name / "chat_template.jinja").write_text(chat.source)
    data = tmp_path / "data"
    data.mkdir()
    lines = [json.dumps({"messages": talk}, ensure_ascii=False) + "\n" for talk in CHATS.values()]
    (data / "train.jsonl").write_text("".join(lines))
    file = tmp_path / "talks.yaml"
    file.write_text(TALKS.format(student=tmp_path / "student", teacher=tmp_path / "teacher", data=data))
    store = Store(tmp_path / "store")
    run.run(recipe.load(file), store)
    out = store.resolve("talks/student").path
    assert (out / "chat_template.jinja").read_text() == chat.source
    ends = hf.load_config(out).eos_id
    assert isinstance(ends, tuple)
    assert set(chat.ends) <= set(ends), "what ends an answer ends the student's writing"
    history = json.loads((out / "training.json").read_text())["history"]
    assert {"own_soft", "soft"} <= {name for row in history for name in row}
