"""Tier 5 as a solver, at pico size: every kind of task, resuming, what is never learnt from, what is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nacre.data.write import write_json, write_jsonl
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.lineage.digest import digest_folder
from nacre.progress import Silent
from nacre.recipe.scaling import Shape
from nacre.recipe.stage import Work
from nacre.tiers.pretrain import effort, solver, tuning
from nacre.tiers.pretrain.pairing import cut
from nacre.tiers.pretrain.phases import Phases
from nacre.tiers.pretrain.stages import SolveConfig, solve
from nacre.tiers.pretrain.texts import TaskTexts
from nacre.tiers.rung import open_rung, read_manifest
from nacre.tiers.task import load

THINGS = ["parcel", "invoice", "kettle", "account", "包裹", "发票", "水壶", "账户"]
ASKED = {"refund": ["money back for the {}", "请把{}的钱退给我"], "delivery": ["where is my {} now", "我的{}到哪里了"]}


def classified(n: int, start: int = 0) -> list[dict[str, Any]]:
    rows = []
    for number in range(start, start + n):
        label = ("refund", "delivery")[number % 2]
        text = ASKED[label][number // 2 % 2].format(THINGS[number // 4 % len(THINGS)])
        rows.append({"id": f"{number}", "text": f"{text} {number}", "label": label})
    return rows


def tagged(n: int, start: int = 0) -> list[dict[str, Any]]:
    rows = []
    for number in range(start, start + n):
        name, place = ("王小明", "北京")[number % 2], number % 2
        tokens = [*"今天", *name, *"来了", str(number)]
        kind = "LOC" if place else "PER"
        tags = ["O", "O", f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1), "O", "O", "O"]
        rows.append({"id": f"{number}", "tokens": tokens, "tags": tags})
    return rows


def written(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"{at}", "source": f"say {THINGS[at % 8]} {at}", "target": f"{THINGS[(at + 4) % 8]}"}
        for at in range(start, start + n)
    ]


def corpus(n: int) -> list[dict[str, Any]]:
    return [
        {"id": f"d{at}", "text": f"About {THINGS[at % 8]} {at}. It tells what the {THINGS[at % 8]} of {at} is for."}
        for at in range(n)
    ]


def queried(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"{at}", "query": f"what is {THINGS[at % 8]} {at % 80} for", "relevant": [f"d{at % 80}"]}
        for at in range(start, start + n)
    ]


MAKERS: Mapping[str, tuple[Callable[..., list[dict[str, Any]]], str]] = {
    "classify": (classified, "accuracy"),
    "tag": (tagged, "entity_f1"),
    "generate": (written, "chrf"),
    "rank": (queried, "recall@10"),
}


def make_task(folder: Path, kind: str, *, n_valid: int = 12) -> Path:
    """A prepared task as `tiers/task.py` describes it."""
    rows, metric = MAKERS[kind]
    labels = ["delivery", "refund"] if kind == "classify" else []
    plain = {"name": f"pico-{kind}", "kind": kind, "about": "Do it.", "metric": metric, "language": "zh"}
    write_json(
        folder / "task.json", plain | {"target_language": "", "labels": labels, "descriptions": {}, "languages": []}
    )
    write_jsonl(folder / "train.jsonl", rows(64))
    if n_valid:
        write_jsonl(folder / "valid.jsonl", rows(n_valid, 64))
    if kind == "rank":
        write_jsonl(folder / "corpus.jsonl", corpus(80))
    return folder


@pytest.fixture(autouse=True)
def _pico(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        kind: replace(recipe, least=Shape(64, 1, 2), batch_size=16, lr=5e-3) for kind, recipe in effort.RECIPES.items()
    }
    monkeypatch.setattr(effort, "RECIPES", small)
    for module in ("design", "solver", "tuning", "ranking", "warming"):
        monkeypatch.setattr(f"nacre.tiers.pretrain.{module}.RECIPES", small)


def workspace(tmp_path: Path, task: Path, name: str = "a", **inputs: Path) -> Work:
    out, scratch = tmp_path / name / "out", tmp_path / name / "scratch"
    for folder in (out, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    return Work({"task": task, **inputs}, out, scratch, seed=3)


def solved(tmp_path: Path, kind: str, **config: Any) -> tuple[Path, Mapping[str, Any]]:
    work = workspace(tmp_path, make_task(tmp_path / "task", kind))
    return work.out, solve(SolveConfig(**{"steps": 24, **config}), work)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_becomes_a_rung_that_answers(kind: str, tmp_path: Path) -> None:
    out, metrics = solved(tmp_path, kind)
    manifest = read_manifest(out)
    assert (manifest.tier, manifest.kind) == ("pretrain", kind)
    assert manifest.owns["kernel"] == manifest.owns["weights"] == manifest.owns["data"] == "own"
    assert manifest.trained_parameters == metrics["parameters"] > 0
    names = {file.name for file in (out / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert str(metrics["warm_up"])
    task = load(tmp_path / "task")
    answers = open_rung(out).answer(task.valid)
    assert all(answer.value is not None for answer in answers)
    task.quality.judge(task.valid, [answer.value for answer in answers])  # values are of the form that is judged


@pytest.mark.parametrize("kind", MAKERS)
def test_batch_and_single_answers_are_equal(kind: str, tmp_path: Path) -> None:
    out, _ = solved(tmp_path, kind)
    rung, rows = open_rung(out), load(tmp_path / "task").valid
    together = rung.answer(rows)
    alone = [rung.answer([row])[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        assert one.value == other.value
        np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=1e-5)


def test_classes_are_learnt_in_both_languages(tmp_path: Path) -> None:
    out, metrics = solved(tmp_path, "classify", steps=60)
    assert metrics["valid_accuracy"] >= 0.9
    rows = [{"text": "money back for the kettle"}, {"text": "我的水壶到哪里了"}]
    assert [answer.value for answer in open_rung(out).answer(rows)] == ["refund", "delivery"]


def test_a_fresh_process_answers_the_same(tmp_path: Path) -> None:
    out, _ = solved(tmp_path, "classify")
    here = open_rung(out).answer([{"text": "where is it"}])[0]
    code = (
        "import json, sys\nfrom pathlib import Path\nimport torch\ntorch.set_num_threads(1)\n"
        "from nacre.tiers.rung import open_rung\n"
        "answer = open_rung(Path(sys.argv[1])).answer([{'text': 'where is it'}])[0]\n"
        "print(json.dumps([answer.value, dict(answer.scores)]))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    value, scores = json.loads(ran.stdout)
    assert value == here.value
    assert scores == pytest.approx(dict(here.scores), abs=1e-6)


def test_a_row_without_text_gets_no_answer_and_disturbs_no_other(tmp_path: Path) -> None:
    out, _ = solved(tmp_path, "classify")
    rung = open_rung(out)
    first, blank = rung.answer([{"text": "where is it"}, {"text": "  "}])
    assert blank.value is None
    assert "empty" in str(blank.problem)
    assert first.value is not None
    assert rung.answer([]) == []


class _Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["classify", "rank"])
def test_killed_in_the_middle_and_run_again_it_is_the_same_rung(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, config = make_task(tmp_path / "task", kind), SolveConfig(steps=24)
    whole = workspace(tmp_path, task, "whole")
    expected = solve(config, whole)

    class Kills(Silent):
        def __init__(self) -> None:
            self.seen = 0

        def update(self, step: int, total: int | None = None, **metrics: Any) -> None:
            self.seen += "valid_loss" in metrics
            if self.seen == 3:  # an evaluation of tuning, after its checkpoint
                raise _Killed

    cut_short = workspace(tmp_path, task, "cut")
    cut_short.progress = Kills()
    with pytest.raises(_Killed):
        solve(config, cut_short)
    assert (cut_short.scratch / "tune" / "work").is_dir()
    assert not any(cut_short.out.iterdir())

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished phase was repeated")

    monkeypatch.setattr(solver, "train", refuse)
    again = replace(cut_short, progress=Silent(), tokens=None, flops=None)
    found = solve(config, again)
    clock = "tokens_per_s"  # the one figure that follows the clock
    assert {k: v for k, v in found.items() if k != clock} == {k: v for k, v in expected.items() if k != clock}
    assert digest_folder(again.out) == digest_folder(whole.out)
    assert (again.tokens, again.flops) == (whole.tokens, whole.flops)


def test_a_phase_that_was_cut_short_starts_with_an_empty_folder(tmp_path: Path) -> None:
    work = workspace(tmp_path, tmp_path)
    half = work.scratch / "one" / "out"
    half.mkdir(parents=True)
    (half / "rubbish").write_text("half", encoding="utf-8")

    def make(inner: Work) -> Mapping[str, Any]:
        (inner.out / "result").write_text("whole", encoding="utf-8")
        inner.spent(tokens=5, flops=7.0)
        return {"n": 1}

    phases = Phases(work)
    phase = phases.run("one", make)
    assert [file.name for file in phase.folder.iterdir()] == ["result"]
    assert (phase.metrics, phases.tokens, phases.flops) == ({"n": 1}, 5, 7.0)


def test_validation_and_test_texts_are_never_learnt_from(tmp_path: Path) -> None:
    folder = make_task(tmp_path / "task", "classify")
    held = classified(1, 64)[0]["text"]
    write_jsonl(
        folder / "unlabelled.jsonl", [{"text": "an honest text"}, {"text": f"  {held.upper()} "}, {"text": " "}]
    )
    other = tmp_path / "corpus"
    write_jsonl(other / "train.jsonl", [{"text": "a named corpus"}, {"source": "one side", "target": "another side"}])
    write_jsonl(other / "valid.jsonl", [{"text": "its validation"}])
    write_jsonl(other / "test.jsonl", [{"text": "its test"}])
    texts = TaskTexts(load(folder), other)
    found = list(texts)
    assert found[64:] == ["an honest text", "a named corpus", "one side", "another side"]
    assert not {row["text"] for row in classified(12, 64)} & set(found)
    assert texts.left_out == {"texts that are validation rows": 1, "texts that are empty": 1}
    assert list(texts) == found
    assert texts.left_out == {"texts that are validation rows": 1, "texts that are empty": 1}


def test_the_corpus_reaches_the_vocabulary(tmp_path: Path) -> None:
    task, other = make_task(tmp_path / "task", "classify"), tmp_path / "corpus"
    write_jsonl(other / "train.jsonl", [{"text": "zygote quorum zygote"}] * 40)
    work = workspace(tmp_path, task, corpus=other)
    metrics = solve(SolveConfig(steps=4), work)
    assert metrics["texts"] == 64 + 40
    vocabulary = json.loads((work.out / "model" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert "zygote" in vocabulary


def test_thorough_tries_the_warm_up_and_validation_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = workspace(tmp_path, make_task(tmp_path / "task", "classify"))
    solve(SolveConfig(effort="thorough", steps=6), work)
    choices = json.loads((work.out / "choices.json").read_text(encoding="utf-8"))
    assert choices["chosen_on"] == "valid"
    assert set(choices["warm_up"]) == {"with", "without"}
    for better in ("tune-warm", "tune"):
        other = workspace(tmp_path, tmp_path / "task", f"prefers-{better}")
        monkeypatch.setattr(tuning, "judged", lambda _, phase, better=better: float(phase.folder.parent.name == better))
        said = solve(SolveConfig(effort="thorough", steps=2), other)["warm_up"]
        assert str(said).startswith("kept" if better == "tune-warm" else "dropped")


def test_a_warm_up_by_span_corruption(tmp_path: Path) -> None:
    _, metrics = solved(tmp_path, "generate", steps=4, warm_up="always")
    assert metrics["warm_up"] == "always: as configured"


def test_without_validation_rows_it_is_solved_and_nothing_is_chosen(tmp_path: Path) -> None:
    work = workspace(tmp_path, make_task(tmp_path / "task", "classify", n_valid=0))
    metrics = solve(SolveConfig(steps=6, effort="thorough"), work)
    assert "no validation rows" in str(metrics["warm_up"])
    assert not (work.out / "choices.json").exists()
    assert not any(name.startswith("valid_") for name in metrics)


def test_the_size_is_explained_in_the_rung(tmp_path: Path) -> None:
    out, metrics = solved(tmp_path, "classify", steps=None, flops=5e9)
    plain = json.loads((out / "scaling.json").read_text(encoding="utf-8"))
    assert plain["size"]["bound"] == metrics["bound"]
    assert plain["steps"] == metrics["tuning_steps"]
    assert plain["tuning_flops"] <= 5e9 * 1.3
    assert "why" in (out / "scaling.txt").read_text(encoding="utf-8")


def test_effort_becomes_numbers_that_do_not_follow_the_clock(tmp_path: Path) -> None:
    assert [effort.EFFORTS[name].flops for name in ("quick", "normal", "thorough")] == sorted(
        one.flops for one in effort.EFFORTS.values()
    )
    task = make_task(tmp_path / "task", "classify")
    few = solve(SolveConfig(flops=2e9), workspace(tmp_path, task, "few"))
    more = solve(SolveConfig(flops=8e9), workspace(tmp_path, task, "more"))
    assert few["tuning_steps"] < more["tuning_steps"]


@pytest.mark.parametrize(
    "values", [{"flops": 1e9, "steps": 5}, {"steps": 0}, {"flops": -1.0}, {"preset": "bort"}, {"flops": float("inf")}]
)
def test_configs_that_cannot_work_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SolveConfig(**values)


def test_a_family_that_cannot_solve_the_task_is_refused_at_plan_time(tmp_path: Path) -> None:
    task = make_task(tmp_path / "task", "classify")
    assert solve.check is not None
    with pytest.raises(ConfigError, match="t5 kernel solves no task of the kind classify"):
        solve.check(SolveConfig(preset="t5"), {"task": task})


def test_a_task_without_rows_is_refused(tmp_path: Path) -> None:
    task = make_task(tmp_path / "task", "classify")
    (task / "train.jsonl").unlink()
    with pytest.raises(DataError, match="no training rows"):
        solve(SolveConfig(steps=1), workspace(tmp_path, task))


def test_a_relevant_text_that_the_corpus_lacks_is_named(tmp_path: Path) -> None:
    task = make_task(tmp_path / "task", "rank")
    write_jsonl(task / "train.jsonl", [{"id": "q1", "query": "what", "relevant": ["nowhere"]}])
    with pytest.raises(DataError, match="'nowhere'"):
        solve(SolveConfig(steps=1), workspace(tmp_path, task))


def test_a_damaged_rung_is_told(tmp_path: Path) -> None:
    out, _ = solved(tmp_path, "rank", steps=2)
    write_json(out / "corpus.json", ["d0"])
    with pytest.raises(CheckpointError, match="1 ids for vectors"):
        open_rung(out)


@pytest.mark.parametrize(
    ("text", "head", "rest"),
    [
        ("First one. And the rest. More", "First one.", " And the rest. More"),
        ("专利的定义。发明是指新的方案。", "专利的定义。", "发明是指新的方案。"),
        ("version 3.5 of it", "version", "3.5 of it"),
        ("为了保护权利，鼓励发明，制定本法。", "为了保护权利，", "鼓励发明，制定本法。"),
        ("法律", "", ""),
        ("", "", ""),
    ],
)
def test_a_text_is_cut_after_its_first_sentence_else_near_its_middle(text: str, head: str, rest: str) -> None:
    found = cut(text)
    assert (found[0].strip(), found[1].strip()) == (head, rest.strip())
    assert found == ("", "") or "".join(found) == text
