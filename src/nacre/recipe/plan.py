"""What a run would do, and why, without doing it. Every mistake of every step is found here, before any work.

A step's fingerprint covers stage and revision, resolved config, seed, and the digests (not the names) of its inputs: it
is known once the steps before it are complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nacre.errors import NacreError, ReferenceNotFound, closest
from nacre.lineage.difference import differences
from nacre.lineage.record import Parent, Record, fingerprint
from nacre.lineage.store import Resolved, Store
from nacre.lineage.workspace import workspace
from nacre.recipe import catalogue
from nacre.recipe.config import Problem, plain, raise_problems, try_build
from nacre.recipe.recipe import Recipe, Step
from nacre.recipe.stage import Input, Stage

CACHED, RUN, RESUME, WAITING = "cached", "run", "resume", "unknown-until-parent"


@dataclass(frozen=True)
class Draft:
    """A step that is right in itself. `sources` maps each given input to the step that makes it, or what it names."""

    name: str
    artifact: str
    stage: Stage
    config: Any
    seed: int
    sources: Mapping[str, str | Resolved]

    @property
    def parents(self) -> list[str]:
        return [source for source in self.sources.values() if isinstance(source, str)]


@dataclass(frozen=True)
class PlannedStep:
    """A step with its state. `record` is the lineage record to be, `product` the artifact of a cached step."""

    draft: Draft
    state: str
    why: str
    record: Record
    inputs: Mapping[str, Path]
    product: Resolved | None = None

    @property
    def name(self) -> str:
        return self.draft.name

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.name,
            "stage": self.draft.stage.name,
            "artifact": self.product.ref if self.product else self.draft.artifact,
            "produces": self.draft.stage.produces,
            "state": self.state,
            "why": self.why,
            "fingerprint": self.record.fingerprint,
            "inputs": [
                {"input": one.input, "relation": one.relation, "ref": one.ref, "digest": one.digest}
                for one in self.record.parents
            ],
            "config": self.record.config,
        }


@dataclass(frozen=True)
class Plan:
    """The steps of a recipe in the order in which they run."""

    recipe: Recipe
    steps: tuple[PlannedStep, ...]

    def to_dict(self) -> dict[str, Any]:
        steps = [step.to_dict() for step in self.steps]
        return {"recipe": self.recipe.name, "about": self.recipe.about, "seed": self.recipe.seed, "steps": steps}


def make(recipe: Recipe, store: Store) -> Plan:
    """The plan of a recipe against a store. Reads inputs to digest them; writes nothing but the hash cache."""
    products: dict[str, Resolved] = {}
    steps = []
    for draft in check(recipe, store):
        step = settle(draft, products, store)
        if step.product is not None:
            products[draft.name] = step.product
        steps.append(step)
    return Plan(recipe, tuple(steps))


def check(recipe: Recipe, store: Store) -> list[Draft]:
    """Every step checked in itself; raises one ConfigError that lists the mistakes of all of them."""
    problems: list[Problem] = []
    stages = {name: _find_stage(name, step, problems) for name, step in recipe.steps.items()}
    drafts = []
    for name, step in recipe.steps.items():
        stage = stages[name]
        if stage is None:
            continue
        config, wrong = try_build(stage.config_type, step.config, f"steps.{name}.config")
        problems += wrong
        sources = _sources(recipe, name, stage, stages, store, problems)
        drafts.append(Draft(name, recipe.artifact(name), stage, config, recipe.seed, sources))
    raise_problems(problems)
    return drafts


def settle(draft: Draft, products: Mapping[str, Resolved], store: Store) -> PlannedStep:
    """The state of a step, given the products of the steps before it.

    Raises IntegrityError when an input or the cached product no longer holds the bytes that its record names.
    """
    pending = [parent for parent in draft.parents if parent not in products]
    found = {name: products.get(one) if isinstance(one, str) else one for name, one in draft.sources.items()}
    known = {name: resolved for name, resolved in found.items() if resolved is not None}
    parents = tuple(_parent(name, draft, known.get(name), store) for name in draft.sources)
    record = Record(
        name=draft.artifact,
        version=0,
        kind=draft.stage.produces,
        digest="",
        parents=parents,
        stage=draft.stage.name,
        revision=draft.stage.revision,
        config=plain(draft.config),
        seed=draft.seed,
    )
    inputs = {name: resolved.path for name, resolved in known.items()}
    if pending:
        return PlannedStep(draft, WAITING, f"after {', '.join(dict.fromkeys(pending))}", record, inputs)
    value = fingerprint(draft.stage.name, draft.stage.revision, record.config, draft.seed, parents)
    record = replace(record, fingerprint=value)
    product = store.find(draft.artifact, value)
    if product is not None:
        store.verify(product)
        return PlannedStep(draft, CACHED, "made this way before", record, inputs, product)
    if workspace(store, draft.artifact, value).is_begun:
        return PlannedStep(draft, RESUME, "an earlier attempt was cut short", record, inputs)
    return PlannedStep(draft, RUN, _why_run(record, store), record, inputs)


def _find_stage(name: str, step: Step, problems: list[Problem]) -> Stage | None:
    try:
        found = catalogue.find(step.stage)
        _ = found.config_type
    except NacreError as error:
        problems.append(Problem(f"steps.{name}.stage", error.message, error.remedy))
        return None
    return found


def _sources(
    recipe: Recipe,
    name: str,
    stage: Stage,
    stages: Mapping[str, Stage | None],
    store: Store,
    problems: list[Problem],
) -> dict[str, str | Resolved]:
    where = f"steps.{name}.inputs"
    given = recipe.steps[name].inputs
    for key in given:
        if key not in stage.inputs:
            problems.append(Problem(where, f"{stage.name} has no input {key!r}", closest(key, stage.inputs)))
    sources: dict[str, str | Resolved] = {}
    for key, wanted in stage.inputs.items():
        if key in given:
            source = _source(recipe, given[key], f"{where}.{key}", store, problems)
            if source is not None:
                sources[key] = source
                _check_kind(source, wanted, stages, f"{where}.{key}", problems)
        elif not wanted.optional:
            remedy = f"add a {wanted.kind}: a step's name or a reference"
            problems.append(Problem(where, f"{stage.name} needs the input {key!r}", remedy))
    return sources


def _source(recipe: Recipe, ref: str, where: str, store: Store, problems: list[Problem]) -> str | Resolved | None:
    if ref in recipe.steps:
        return ref
    try:
        return store.resolve(ref, recipe.folder)
    except ReferenceNotFound as error:
        near = get_close_matches(ref, recipe.steps, n=1)
        remedy = f"did you mean {near[0]!r}, a step of this recipe?" if near and ":" not in ref else error.remedy
        problems.append(Problem(where, error.message, remedy))
    except NacreError as error:
        problems.append(Problem(where, error.message, error.remedy))
    return None


def _check_kind(
    source: str | Resolved,
    wanted: Input,
    stages: Mapping[str, Stage | None],
    where: str,
    problems: list[Problem],
) -> None:
    if isinstance(source, str):
        maker = stages[source]
        kind = maker.produces if maker else None
    else:
        kind = source.record.kind if source.record else None
    if kind is not None and wanted.kind not in (kind, "any"):
        ref = source if isinstance(source, str) else source.ref
        problems.append(Problem(where, f"{ref} is a {kind}, not a {wanted.kind}", f"give a {wanted.kind}"))


def _parent(name: str, draft: Draft, resolved: Resolved | None, store: Store) -> Parent:
    relation = draft.stage.inputs[name].relation
    if resolved is None:
        return Parent(relation, str(draft.sources[name]), input=name)
    record = resolved.record
    if record is None:
        return Parent(relation, resolved.ref, store.digest(resolved), basis="none", input=name)
    if record.digest:
        store.verify(resolved)
    digest = record.digest or store.digest(resolved)  # a catalogue may describe bytes that it has not hashed
    return Parent(relation, resolved.ref, digest, record.licence, record.extra.get("origin"), record.basis, name)


def _why_run(record: Record, store: Store) -> str:
    versions = store.versions(record.name)
    if not versions:
        return "not made before"
    newest = store.get(record.name, versions[-1])
    assert newest.record is not None  # `get` reads it
    changes = differences(newest.record, record)
    return f"differs from {newest.ref}: {'; '.join(changes) or 'an older way of making it'}"
