from __future__ import annotations

from pathlib import Path

import pytest

from nacre.errors import UsageError
from nacre.lineage.store import Store
from nacre.recipe.plan import make
from nacre.recipe.recipe import load
from nacre.recipe.run import run


def test_a_recipe_runs_once_and_is_cached_after(toy_folder: Path) -> None:
    store = Store()
    recipe = load(toy_folder / "toy.yaml")
    assert [step.state for step in make(recipe, store).steps] == ["run", "unknown-until-parent", "unknown-until-parent"]
    first = run(recipe, store)
    assert [result.state for result in first] == ["done", "done", "done"]
    assert [result.ref for result in first] == ["toy/clean@1", "toy/train@1", "toy/measure@1"]
    again = run(recipe, store)
    assert [result.state for result in again] == ["cached", "cached", "cached"]
    assert [one.record.digest for one in again] == [one.record.digest for one in first]


def test_one_of_several_processes_is_refused_before_any_work(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They waited for each other: the first held the step, the others were needed to train it."""
    store = Store()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process, and this is one of 2") as told:
        run(load(toy_folder / "toy.yaml"), store)
    assert "without torchrun" in told.value.remedy
    assert not store.root.exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert [result.state for result in run(load(toy_folder / "toy.yaml"), store)] == ["done", "done", "done"]
