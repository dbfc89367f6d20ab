"""Tier 4 as a solver: every kind of task is tuned, chosen on validation, and answers from its folder alone."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tune_tasks import base_model, desk_rows, make_task

from nacre.errors import CheckpointError, ConfigError
from nacre.kernel import hf
from nacre.kernel.adapters import peft
from nacre.kernel.adapters.config import LoraConfig
from nacre.lineage.digest import digest_folder
from nacre.recipe import catalogue
from nacre.recipe.config import build
from nacre.recipe.stage import Work
from nacre.tiers.rung import open_rung, read_manifest
from nacre.tiers.task import load
from nacre.tiers.tune.stages import SolveConfig

LORA = LoraConfig(4, 8.0, 0.0, ("attention.*",))


def work_in(place: Path, task: Path, base: Path, seed: int = 0) -> Work:
    (place / "out").mkdir(parents=True)
    (place / "scratch").mkdir(exist_ok=True)
    return Work({"task": task, "base": base}, place / "out", place / "scratch", seed=seed)


def solve(place: Path, task: Path, base: Path, **config: Any) -> tuple[Path, Any]:
    work = work_in(place, task, base)
    figures = catalogue.find("tune.solve")(SolveConfig(**config), work)
    return work.out, figures


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four intents in both languages, and a small encoder that knows their words."""
    place = tmp_path_factory.mktemp("desk")
    rows, tests = desk_rows(intents=4, per_intent=24)
    task = make_task(place / "task", "classify", rows, tests)
    return task, base_model(place / "base", "bert", [row["text"] for row in rows])


def answers_alone_and_together(rung: Path, rows: Any) -> list[Any]:
    """The answers; alone and in a batch they are the same."""
    with closing(open_rung(rung)) as opened:
        together = opened.answer(rows)
        for row, answer in zip(rows[:5], together, strict=False):
            alone = opened.answer([row])[0]
            assert alone.value == answer.value
            assert list(alone.scores) == list(answer.scores)
            assert np.allclose(list(alone.scores.values()), list(answer.scores.values()), atol=1e-5)
    return [answer.value for answer in together]


@pytest.mark.parametrize("method", ["frozen", "lora", "full"])
def test_each_method_learns_the_desk_in_both_languages(method: Any, desk: Any, tmp_path: Path) -> None:
    rows, base = load(desk[0]).train, desk[1]
    # A base without sense learns by heart alone: validation rows are the training rows here.
    task = load(make_task(tmp_path / "task", "classify", rows, rows))
    out, figures = solve(
        tmp_path / "work", task.folder, base, methods=(method,), epochs=8, learning_rates=(5e-3,), lora_rates=(2e-2,),
        batch_size=8, lora=LORA,
    )  # fmt: skip
    values = answers_alone_and_together(out, task.valid)
    assert task.quality.judge(task.valid, values).score == pytest.approx(figures[f"valid_{method}"], abs=1e-6)
    assert figures[f"valid_{method}"] > 0.5  # four classes
    manifest = read_manifest(out)
    kernel = hf.load(out / "model")
    head = 4 * 32 + 4
    adapted = 2 * 4 * 2 * 4 * 32 + head
    every = sum(one.numel() for one in kernel.parameters())
    assert manifest.trained_parameters == {"frozen": head, "lora": adapted, "full": every}[method]
    assert manifest.owns["kernel"] == "borrowed"
    assert (out / "adapter" / peft.CONFIG).is_file() == (method == "lora")
    body = {name: one for name, one in kernel.state_dict().items() if not name.startswith("classifier")}
    unchanged = all(one.equal(hf.load(base).state_dict()[name]) for name, one in body.items())
    assert unchanged == (method == "frozen")


def test_search_is_recorded_and_the_best_on_validation_is_kept(desk: Any, tmp_path: Path) -> None:
    out, figures = solve(
        tmp_path, *desk, methods=("frozen", "lora", "full"), learning_rates=(1e-6, 3e-3), lora_rates=(1e-3,),
        epochs=1, flops=5e10, search=0.5, lora=LORA, batch_size=8,
    )  # fmt: skip
    choices = json.loads((out / "choices.json").read_text())
    names = [one["name"] for one in choices["trials"]]
    assert names[0] == "frozen"
    assert len(choices["plan"]["rounds"]) == 2
    assert sum(not one["whole"] for one in choices["trials"]) == 5  # three, then two
    best = max((one for one in choices["trials"] if one["whole"]), key=lambda one: one["score"])
    assert choices["chosen"] == best["name"]
    assert figures["method"] == best["method"]
    assert figures["trials"] == len(names) == 7


def test_the_same_config_and_seed_give_the_same_bytes(desk: Any, tmp_path: Path) -> None:
    config: dict[str, Any] = {"methods": ("frozen", "full"), "epochs": 1, "learning_rates": (1e-3,)}
    first, _ = solve(tmp_path / "a", *desk, **config)
    again, _ = solve(tmp_path / "b", *desk, **config)
    assert digest_folder(first) == digest_folder(again)


def test_a_killed_search_goes_on_to_the_same_result(desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed inside the second training run, after a checkpoint of it: what was done is not done again."""
    from nacre.tiers.tune import trial
    from nacre.train import loop

    config: dict[str, Any] = {
        "methods": ("frozen", "lora", "full"), "epochs": 1, "learning_rates": (3e-3,), "lora_rates": (1e-2,),
        "flops": 5e10, "search": 0.5, "batch_size": 8, "lora": LORA,
    }  # fmt: skip
    whole, _ = solve(tmp_path / "whole", *desk, **config)
    work = work_in(tmp_path / "cut", *desk)
    after = loop.Trainer._after_step
    runs: list[int] = []

    def dies(self: Any) -> None:
        after(self)
        if self.step == 1:
            runs.append(1)
        if len(runs) == 2 and self.step == 5:
            self._save()
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, "_after_step", dies)
    with pytest.raises(KeyboardInterrupt):
        catalogue.find("tune.solve")(SolveConfig(**config), work)
    monkeypatch.setattr(loop.Trainer, "_after_step", after)
    started: list[str] = []
    fitted = trial.fit

    def counted(*arguments: Any) -> Any:
        started.append(arguments[-1].out.parent.name)
        return fitted(*arguments)

    monkeypatch.setattr(trial, "fit", counted)
    catalogue.find("tune.solve")(SolveConfig(**config), work)
    names = [one["name"] for one in json.loads((work.out / "choices.json").read_text())["trials"]]
    assert started == names[2:]  # the frozen one and the first trial were finished
    assert digest_folder(work.out) == digest_folder(whole)


def test_a_rung_answers_in_a_fresh_process(desk: Any, tmp_path: Path) -> None:
    out, _ = solve(tmp_path, *desk, methods=("frozen",))
    rows = [*load(desk[0]).valid[:3], {"text": "  "}, {"text": "我的包裹坏了"}]
    program = (
        "import json, sys; from pathlib import Path; from nacre.tiers.rung import open_rung;"
        "found = open_rung(Path(sys.argv[1])).answer(json.loads(sys.argv[2]));"
        "print(json.dumps([[one.value, one.problem] for one in found]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(out), json.dumps(rows)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    with closing(open_rung(out)) as rung:
        assert found == [[one.value, one.problem] for one in rung.answer(rows)]
    assert found[3] == [None, "the row's text is empty"]
    assert found[4][0] in load(desk[0]).labels


def test_configs_are_checked_before_work(desk: Any, tmp_path: Path) -> None:
    stage = catalogue.find("tune.solve")
    assert stage.check is not None
    rows = [{"id": "1", "tokens": ["a"], "tags": ["O"]}]
    tags = make_task(tmp_path / "tags", "tag", rows, rows)
    with pytest.raises(ConfigError, match="frozen"):
        stage.check(SolveConfig(methods=("frozen",)), {"task": tags, "base": desk[1]})
    with pytest.raises(ConfigError, match="learning rate"):
        SolveConfig(learning_rates=(0.0,))
    with pytest.raises(ConfigError, match="'lora'"):
        build(SolveConfig, {"methods": ["loar"]}, "tune")


def test_a_base_that_cannot_write_is_refused_with_the_remedy(desk: Any, tmp_path: Path) -> None:
    rows = [{"id": "1", "source": "hello", "target": "你好"}]
    task = make_task(tmp_path / "task", "generate", rows, rows)
    with pytest.raises(CheckpointError, match="cannot write text") as caught:
        solve(tmp_path / "work", task, desk[1])
    assert "decoder" in caught.value.remedy
