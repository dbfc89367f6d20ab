"""The recipes of the repository: right in themselves, and resumed bit for bit when killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nacre.lineage.store import Resolved, Store
from nacre.recipe.plan import check
from nacre.recipe.recipe import load

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_is_right_in_itself(path: Path, tmp_path: Path) -> None:
    """Stages, keys, types and wiring; data sets and models need not be on this machine."""

    def anything(rest: str) -> Resolved:
        return Resolved(f"any:{rest}", tmp_path)

    recipe = load(path)
    assert recipe.name == path.stem
    assert recipe.about
    assert len(check(recipe, Store(resolvers={"data": anything, "model": anything}))) == len(recipe.steps)


def digests(root: Path) -> dict[str, str]:
    store = Store(root)
    products = [store.get(name, version) for name in store.names() for version in store.versions(name)]
    return {product.ref: product.record.digest for product in products if product.record}


@pytest.mark.slow
def test_trap_44_a_recipe_killed_while_it_trains_ends_with_the_same_digests(tmp_path: Path) -> None:
    settings = ("tune.train.epochs=2", "tune.train.checkpoint_every=3", "tune.train.batch_size=32")
    options = [word for one in settings for word in ("--set", one)]
    command = [sys.executable, "-m", "nacre.cli.main", "run", str(RECIPES / "digits.yaml"), "--device", "cpu", *options]

    def start(root: Path) -> subprocess.Popen[bytes]:
        words = [*command, "--store", str(root)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    root, draw, kills = tmp_path / "killed", random.Random(1), 0
    while kills < 4:
        process = start(root)
        logs = root / "work"
        while process.poll() is None and not list(logs.glob("digits+tune-*/scratch/*")):
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 3.0) if kills else 0.0)  # at the first checkpoint, then anywhere
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break  # it was faster
        kills += 1
    assert kills > 0
    assert start(root).wait() == 0
    assert digests(root) == digests(tmp_path / "whole")
