"""Laws of digests, records and plans over generated cases."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest
import toy_stages
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.errors import ConfigError
from nacre.lineage.digest import Entry, digest_entries, digest_folder, digest_json
from nacre.lineage.record import Cost, Parent, Record, fingerprint, from_dict
from nacre.lineage.store import Store, check_name
from nacre.recipe import catalogue, yaml12
from nacre.recipe.plan import make
from nacre.recipe.recipe import parse

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..", "lineage.json", "logs")
)
TREES = st.dictionaries(NAMES, st.binary(max_size=40), min_size=1, max_size=5)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8)
PLAIN = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3)
)
CONFIGS = st.dictionaries(st.text(max_size=5), PLAIN, max_size=4)
HEX = st.text("0123456789abcdef", min_size=4, max_size=4)


def written(tree: dict[str, bytes], folder: Path, order: list[str]) -> Path:
    folder.mkdir()
    for name in order:
        (folder / name).write_bytes(tree[name])
    return folder


@settings(max_examples=60, deadline=None)
@given(TREES, TREES, st.randoms(use_true_random=False))
def test_folders_have_one_digest_exactly_when_they_hold_the_same(
    one: dict[str, bytes], two: dict[str, bytes], draw: random.Random
) -> None:
    if any(len(name.encode()) > 200 for name in [*one, *two]):
        return
    with tempfile.TemporaryDirectory() as root:
        shuffled = list(one)
        draw.shuffle(shuffled)
        first = digest_folder(written(one, Path(root, "a"), list(one)))
        assert digest_folder(written(one, Path(root, "b"), shuffled)) == first
        assert (digest_folder(written(two, Path(root, "c"), list(two))) == first) == (one == two)


@given(
    st.lists(st.tuples(NAMES, st.integers(0, 9), HEX), unique_by=lambda row: row[0]), st.randoms(use_true_random=False)
)
def test_manifest_digest_does_not_depend_on_order(rows: list[tuple[str, int, str]], draw: random.Random) -> None:
    entries = [Entry(*row) for row in rows]
    shuffled = entries[:]
    draw.shuffle(shuffled)
    assert digest_entries(tuple(shuffled)) == digest_entries(tuple(entries))


@given(CONFIGS, CONFIGS)
def test_json_digests_agree_exactly_when_values_do(one: dict[str, object], two: dict[str, object]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (digest_json(one) == digest_json(two)) == same
    assert digest_json(dict(reversed(one.items()))) == digest_json(one)


@given(CONFIGS, CONFIGS, st.integers(), st.text(max_size=5), st.dictionaries(st.sampled_from(["new", "newer"]), PLAIN))
def test_records_survive_json(
    config: dict[str, object], metrics: dict[str, object], seed: int, note: str, future: dict[str, object]
) -> None:
    parent = Parent("trained_on", "a@1", "sha256:00", extra=future)
    record = Record(
        "a", 1, "model", "sha256:11", "sha256:22", parents=(parent,), config=config, metrics=metrics, seed=seed,
        notes=(note,), cost=Cost(1.0, extra=future), extra=future, files={"x": (1, "ff")},
    )  # fmt: skip
    assert from_dict(json.loads(json.dumps(record.to_dict()))) == record


@given(st.permutations(["a", "b", "c"]), CONFIGS)
def test_fingerprints_do_not_depend_on_the_order_of_inputs(order: list[str], config: dict[str, object]) -> None:
    parents = [Parent("trained_on", f"{name}@1", f"sha256:{name}", input=name) for name in order]
    assert fingerprint("s", 1, config, 0, parents) == fingerprint(
        "s", 1, config, 0, sorted(parents, key=lambda p: p.ref)
    )


@given(st.text(max_size=30))
def test_no_name_leaves_the_store(name: str) -> None:
    root = Path("/root/store")
    try:
        check_name(name)
    except ConfigError:
        return
    assert (root / name).resolve().is_relative_to(root)
    assert (root / name).resolve() != root


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_writes_is_read_as_one(value: float) -> None:
    assert yaml12.loads(repr(value), "x") == value


@st.composite
def wirings(draw: st.DrawFn) -> dict[str, dict[str, object]]:
    """Chains and diamonds of toy stages in any written order, without cycles."""
    n_trains = draw(st.integers(1, 4))
    steps: dict[str, dict[str, object]] = {"clean": {"stage": "toy.clean", "inputs": {"source": "raw.txt"}}}
    for index in range(n_trains):
        config = {"lr": draw(st.sampled_from([0.1, 0.2])), "steps": 1}
        steps[f"train{index}"] = {"stage": "toy.train", "inputs": {"data": "clean"}, "config": config}
        inputs = {"model": f"train{index}", "data": "clean"}
        if draw(st.booleans()):
            inputs["rival"] = f"train{draw(st.integers(0, n_trains - 1))}"
        steps[f"measure{index}"] = {"stage": "toy.measure", "inputs": inputs}
    names = draw(st.permutations(list(steps)))
    return {name: steps[name] for name in names}


@pytest.fixture(scope="module")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_stages.write_toy(tmp_path_factory.mktemp("raw"))


@settings(max_examples=40, deadline=None)
@given(steps=wirings())
def test_plans_put_parents_first_and_do_not_depend_on_the_written_order(
    steps: dict[str, dict[str, object]], raw_folder: Path
) -> None:
    catalogue.STAGES.update(toy_stages.TABLE)
    try:
        recipe = parse({"name": "toy", "steps": steps}, raw_folder, "x")
        store = Store(Path(tempfile.gettempdir(), "nacre-no-such-store"))
        plan = make(recipe, store)
        seen: set[str] = set()
        for step in plan.steps:
            assert set(step.draft.parents) <= seen
            assert (step.state == "run") == (step.name == "clean")
            seen.add(step.name)
        assert seen == set(steps)
        backwards = make(parse({"name": "toy", "steps": dict(reversed(steps.items()))}, raw_folder, "x"), store)
        key = {step.name: (step.state, step.record.fingerprint, step.record.config) for step in plan.steps}
        assert {step.name: (step.state, step.record.fingerprint, step.record.config) for step in backwards.steps} == key
        assert not store.root.exists()
    finally:
        for name in toy_stages.TABLE:
            catalogue.STAGES.pop(name)
        shutil.rmtree(Path(tempfile.gettempdir(), "nacre-no-such-store"), ignore_errors=True)
