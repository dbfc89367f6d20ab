"""Kill at any moment, run again: the same final digests, nothing half-written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import crash
import pytest
import toy_stages

from nacre.errors import ResourceError
from nacre.lineage.graph import require_intact, trace
from nacre.lineage.store import Store
from nacre.lineage.workspace import workspace
from nacre.recipe.plan import make
from nacre.recipe.recipe import load
from nacre.recipe.run import run

PROGRAM = Path(toy_stages.__file__).with_name("toy_program.py")


def digests(store: Store) -> dict[str, str]:
    return {
        found.record.ref: found.record.digest
        for name in store.names()
        for version in store.versions(name)
        if (found := store.get(name, version)).record
    }


def assert_nothing_half_written(store: Store) -> None:
    """Everything that looks finished verifies byte for byte."""
    assert store.unrecorded() == []
    for name in store.names():
        for version in store.versions(name):
            store.verify(store.get(name, version), deep=True)


def assert_finished_like(store: Store, expected: dict[str, str]) -> None:
    assert_nothing_half_written(store)
    assert digests(store) == expected
    require_intact(trace(store, "toy/measure"))
    work = store.root / "work"
    assert not work.exists() or not list(work.iterdir())


def complete(folder: Path, root: Path) -> int:
    """Runs the toy recipe in this process; gives an exit code."""
    try:
        run(load(folder / "toy.yaml"), Store(root))
    except ResourceError:
        return 1
    return 0


@pytest.fixture
def expected(toy_folder: Path, tmp_path: Path) -> dict[str, str]:
    """The digests of an uninterrupted run."""
    store = Store(tmp_path / "uninterrupted")
    run(load(toy_folder / "toy.yaml"), store)
    return digests(store)


def n_operations(folder: Path, root: Path, *, writes: bool = False) -> int:
    counted = root.with_suffix(".count")

    def count() -> int:
        faults = crash.FileSystemFaults(root, None, crash.die, writes=writes)
        code = complete(folder, root)
        counted.write_text(str(faults.count))
        return code

    assert crash.in_child(count) == 0
    return int(counted.read_text())


def strike_at(folder: Path, root: Path, operation: int, strike: Callable[[], None], *, writes: bool = False) -> int:
    def work() -> int:
        crash.FileSystemFaults(root, operation, strike, writes=writes)
        return complete(folder, root)

    return crash.in_child(work)


# A prime stride samples every part of the run in the default suite; the slow one leaves nothing out.
@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_file_system_operations(
    toy_folder: Path, tmp_path: Path, expected: dict[str, str], stride: int
) -> None:
    total = n_operations(toy_folder, tmp_path / "counted")
    assert total > 100  # the faults really see the store
    for operation in range(1, total + 1, stride):
        root = tmp_path / f"killed-{operation}"
        assert strike_at(toy_folder, root, operation, crash.die) == -signal.SIGKILL
        assert_nothing_half_written(Store(root))
        assert complete(toy_folder, root) == 0
        assert_finished_like(Store(root), expected)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_disk_full_at_operations_that_write(
    toy_folder: Path, tmp_path: Path, expected: dict[str, str], stride: int
) -> None:
    total = n_operations(toy_folder, tmp_path / "counted", writes=True)
    assert total > 30
    for operation in range(1, total + 1, stride):
        root = tmp_path / f"full-{operation}"
        # 1 is a ResourceError. 0: the operation was not needed (a folder that was there), and everything is made.
        code = strike_at(toy_folder, root, operation, crash.disk_full, writes=True)
        assert code == 1 or (code == 0 and digests(Store(root)) == expected)
        assert_nothing_half_written(Store(root))
        assert complete(toy_folder, root) == 0
        assert_finished_like(Store(root), expected)


def test_killed_twice_at_different_operations(toy_folder: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    total = n_operations(toy_folder, tmp_path / "counted")
    draw = random.Random(3)
    for trial in range(5):
        root = tmp_path / f"twice-{trial}"
        for _ in range(3):
            strike_at(toy_folder, root, draw.randint(1, total), crash.die)
            assert_nothing_half_written(Store(root))
        assert complete(toy_folder, root) == 0
        assert_finished_like(Store(root), expected)


@pytest.mark.slow
def test_killed_at_random_moments_by_another_process(toy_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "run", "toy.yaml", "--quiet", "--set", "train.pause_s=0.02"]

    def started(root: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--store", str(root)], cwd=toy_folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    whole = started(tmp_path / "whole")
    began = time.monotonic()
    assert whole.wait() == 0
    took_s = time.monotonic() - began
    expected = digests(Store(tmp_path / "whole"))
    root, draw, killed = tmp_path / "killed", random.Random(5), 0
    for _ in range(15):
        process = started(root)
        time.sleep(draw.uniform(0.2, 1.0) * took_s)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert_nothing_half_written(Store(root))
    assert killed > 0
    assert started(root).wait() == 0
    assert_finished_like(Store(root), expected)


def test_a_killed_step_goes_on_from_its_scratch(toy_folder: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    root = tmp_path / "store"

    def until_third_step() -> int:
        original, calls = Path.replace, []

        def counted(self: Path, target: Path) -> Path:
            calls.append(self)
            if len(calls) == 4:
                crash.die()
            return original(self, target)

        Path.replace = counted  # type: ignore[assignment, method-assign]
        return complete(toy_folder, root)

    assert crash.in_child(until_third_step) == -signal.SIGKILL
    store = Store(root)
    plan = make(load(toy_folder / "toy.yaml"), store)
    assert [step.state for step in plan.steps] == ["cached", "resume", "unknown-until-parent"]
    results = run(load(toy_folder / "toy.yaml"), store)
    assert digests(store) == expected
    lines = (results[1].path / "logs" / "metrics.jsonl").read_text().splitlines()
    assert [line.count('"step"') for line in lines] == [1, 1, 1, 0, 1, 1, 1]  # three, "resumed", three
    assert "attempt 2" in results[1].record.notes[0]


def test_two_processes_make_a_step_once(toy_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    command = [sys.executable, str(PROGRAM), "run", "toy.yaml", "--store", str(root), "--set", "train.pause_s=0.3"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    first = subprocess.Popen(
        command, cwd=toy_folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
    )
    assert first.stderr is not None
    while b"running train" not in first.stderr.readline():
        assert first.poll() is None
    second = subprocess.run(command, cwd=toy_folder, capture_output=True, check=False, env=environment)
    assert (first.wait(), second.returncode) == (0, 0)
    first.stderr.close()
    assert f"process {first.pid}".encode() in second.stderr
    assert Store(root).versions("toy/train") == [1]


def test_leftover_work_is_swept_by_the_next_run_of_its_step(toy_folder: Path) -> None:
    store = Store()
    recipe = load(toy_folder / "toy.yaml")
    run(recipe, store)
    stale = store.root / "work" / "toy+train-0123456789ab" / "scratch"
    stale.mkdir(parents=True)
    (stale / "old.bin").write_bytes(b"x")
    other = store.root / "work" / "toy+train-er-0123456789ab"
    other.mkdir()
    run(recipe, store)
    assert not stale.exists()
    assert other.exists()  # of another name


@pytest.mark.parametrize("torn", [False, True])
def test_a_finished_but_unpublished_step_is_published_only_when_whole(
    toy_folder: Path, tmp_path: Path, expected: dict[str, str], torn: bool
) -> None:
    """As after a power cut between the record and the rename; torn: a file did not reach the disk."""
    root = tmp_path / "store"
    store = Store(root)
    recipe = load(toy_folder / "toy.yaml")
    run(recipe, store)
    trained = store.get("toy/train", 1)
    assert trained.record is not None
    space = workspace(store, "toy/train", str(trained.record.fingerprint))
    space.folder.mkdir()
    trained.path.rename(space.out)
    if torn:
        (space.out / "weights" / "part-1.bin").write_bytes(b"")
    results = run(recipe, store)
    assert [result.state for result in results] == ["cached", "done" if torn else "recovered", "cached"]
    assert_finished_like(store, expected)
