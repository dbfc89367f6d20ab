from __future__ import annotations

from pathlib import Path

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
