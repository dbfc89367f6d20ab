"""Recipes: YAML files that wire stages. References stand under `inputs` only; a config holds plain values.

name: intents
seed: 7
about: A customer-service intent classifier, from raw text.
steps:
  split:
    stage: prepare.split
    inputs: {source: "data:banking77"}
  tune:
    stage: tune.classify
    inputs: {data: split}            # the step above; or name@version, or a path relative to this file
    config: {epochs: 3, lr: 2e-4}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nacre.errors import ConfigError, UsageError, closest
from nacre.lineage.store import check_name
from nacre.recipe import yaml12
from nacre.recipe.config import Problem, build, raise_problems

_SEEDS = 2**32  # what every random generator underneath takes


@dataclass(frozen=True)
class Step:
    """One step as written: nothing is resolved yet."""

    stage: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _File:
    name: str
    steps: Mapping[str, Step]
    seed: int = 0
    about: str = ""


@dataclass(frozen=True)
class Recipe:
    """A recipe as written, with its steps in an order in which they can run. `folder` is what paths are relative to."""

    name: str
    steps: Mapping[str, Step]
    seed: int
    about: str
    folder: Path

    def artifact(self, step: str) -> str:
        """The store name of a step's product."""
        return f"{self.name}/{step}"

    def parents(self, step: str) -> list[str]:
        """The steps whose products a step takes."""
        return [ref for ref in self.steps[step].inputs.values() if ref in self.steps]


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, `STEP.KEY=VALUE` overrides applied; raises ConfigError naming every mistake in its form."""
    values = yaml12.load(path)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} holds no recipe", remedy="a recipe is a mapping with name, seed, about and steps")
    return parse(_without_nulls(values), path.parent, str(path), overrides)


def parse(values: Mapping[str, Any], folder: Path, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain values."""
    file = build(_File, values, where)
    if not file.steps:
        raise ConfigError(f"{where}: no steps", remedy="add at least one step under steps:")
    for name in (file.name, *file.steps):
        check_name(name)
    if not 0 <= file.seed < _SEEDS:
        raise ConfigError(f"{where}.seed is {file.seed}", remedy="give a whole number from 0 to 2^32 - 1")
    recipe = Recipe(file.name, file.steps, file.seed, file.about, folder)
    recipe = replace(recipe, steps=_overridden(recipe.steps, overrides))
    return replace(recipe, steps={name: recipe.steps[name] for name in _order(recipe, where)})


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """`config:` with nothing after it means an empty mapping to everyone who writes YAML."""
    steps = values.get("steps")
    if not isinstance(steps, Mapping):
        return dict(values)
    cleaned = {
        name: {key: {} if value is None and key in ("inputs", "config") else value for key, value in step.items()}
        if isinstance(step, Mapping)
        else step
        for name, step in steps.items()
    }
    return {**values, "steps": cleaned}


def _overridden(steps: Mapping[str, Step], overrides: Sequence[str]) -> dict[str, Step]:
    changed = dict(steps)
    for text in overrides:
        left, equals, right = text.partition("=")
        name, *path = left.strip().split(".")
        if not equals or not path or not all(path):
            raise UsageError(
                f"--set {text}: not of the form STEP.KEY=VALUE", remedy="for example --set tune.train.epochs=3"
            )
        if name not in changed:
            raise UsageError(f"--set {text}: no step {name!r}", remedy=closest(name, changed))
        value = yaml12.loads(right, f"--set {text}")
        changed[name] = replace(changed[name], config=placed(changed[name].config, path, value))
    return changed


def placed(config: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested mappings with `value` at `path`, as `--set` puts it."""
    head, *rest = path
    if not rest:
        return {**config, head: value}
    inner = config.get(head)
    return {**config, head: placed(inner if isinstance(inner, Mapping) else {}, rest, value)}


def _order(recipe: Recipe, where: str) -> list[str]:
    """Steps after their parents, otherwise as written; raises ConfigError on a cycle, naming it."""
    ordered: list[str] = []
    trail: list[str] = []

    def visit(step: str) -> None:
        if step in trail:
            ring = " -> ".join([*trail[trail.index(step) :], step])
            raise_problems([Problem(f"{where}: steps", f"they wait for each other: {ring}", "break the ring")])
        if step in ordered:
            return
        trail.append(step)
        for parent in recipe.parents(step):
            visit(parent)
        trail.pop()
        ordered.append(step)

    for step in recipe.steps:
        visit(step)
    return ordered
