"""Checkpoints are complete or absent, verified, and the best one is kept."""

from __future__ import annotations

import errno
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nacre.errors import IntegrityError, ResourceError
from nacre.progress import Silent
from nacre.train.checkpoint import Checkpoints
from nacre.train.ema import WeightAverage
from nacre.train.scaler import LossScaler
from nacre.train.stopping import Best


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": {"w": torch.arange(1000.0) * step}}


class Undisturbed(Silent):
    """Nothing may be reported: no checkpoint is half there."""

    def note(self, event: str, **details: Any) -> None:
        pytest.fail(f"{event}: {details}")


def test_trap_45_a_write_that_fails_leaves_nothing_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))

    def full(value: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ResourceError, match="No space left") as error:
        checkpoints.save(2, state(2))
    assert "free disk space" in error.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_trap_45_a_kill_between_any_two_operations_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    for kill_at in range(8):
        folder = tmp_path / str(kill_at)
        Checkpoints(folder).save(1, state(1))
        left = kill_at

        def dying(original: Any) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return original(*args, **options)

            return call

        with monkeypatch.context() as patch:
            for owner, name in [(torch, "save"), (Path, "write_text"), (Path, "rename"), (Path, "mkdir")]:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            patch.setattr("nacre.train.checkpoint._flush", dying(lambda path: None))
            with suppress(Killed):
                Checkpoints(folder).save(2, state(2))
        found = Checkpoints(folder).latest(Undisturbed())
        assert found is not None
        assert torch.equal(found["weights"]["w"], state(found["step"])["weights"]["w"])
        assert Checkpoints(folder).save(2, state(2)).is_dir()


def test_a_damaged_checkpoint_is_reported_and_the_one_before_taken(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    newest = checkpoints.save(2, state(2)) / "state.pt"
    content = bytearray(newest.read_bytes())
    content[-700] ^= 1
    newest.write_bytes(content)
    notes: list[dict[str, Any]] = []

    class Heard(Silent):
        def note(self, event: str, **details: Any) -> None:
            notes.append(details)

    found = checkpoints.latest(Heard())
    assert found is not None
    assert found["step"] == 1
    assert notes[0]["step"] == 2
    checkpoints.save(2, state(2))
    found = checkpoints.latest(Undisturbed())
    assert found is not None
    assert found["step"] == 2
    (tmp_path / "step-00000002" / "state.pt").write_bytes(b"")
    (tmp_path / "step-00000001" / "checkpoint.json").write_text("{")
    with pytest.raises(IntegrityError, match="step-00000001"):
        checkpoints.latest(Silent())
    assert Checkpoints(tmp_path / "new").latest(Silent()) is None


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 6):
        checkpoints.save(step, state(step))
        if step == 2:
            checkpoints.mark_best(2, "loss", 1.0)
    assert checkpoints.steps() == [2, 4, 5]
    checkpoints.mark_best(5, "loss", 0.5)
    checkpoints.save(6, state(6))
    assert checkpoints.steps() == [5, 6]


@given(st.lists(st.floats(allow_nan=True, width=32), max_size=20), st.sampled_from(["min", "max"]))
def test_trap_50_nan_is_never_the_best(values: list[float], mode: str) -> None:
    best = Best(mode)
    for step, value in enumerate(values):
        assert best.observe(step, value) == (best.step == step)
    real = [value for value in values if not math.isnan(value)]
    assert best.value == ((min if mode == "min" else max)(real) if real else None)
    again = Best(mode)
    again.load_state_dict(best.state_dict())
    assert again == best


def test_smaller_changes_than_the_delta_are_no_improvement() -> None:
    best = Best("min", min_delta=0.1)
    assert [best.observe(i, value) for i, value in enumerate([1.0, 0.95, 0.85, 0.8])] == [True, False, True, False]
    assert best.waited == 1


def test_trap_29_an_overflow_halves_the_scale_and_repeats_the_step() -> None:
    scaler = LossScaler(scale=4.0, patience=2)
    assert not scaler.accepted(False, 0)
    assert scaler.scale == 2.0
    assert scaler.accepted(True, 0)
    assert scaler.accepted(True, 1)
    assert scaler.scale == 4.0
    restored = LossScaler()
    restored.load_state_dict(scaler.state_dict())
    assert (restored.scale, restored.good_steps) == (4.0, 0)


def test_the_average_follows_the_weights_and_gives_them_back() -> None:
    weight = torch.zeros(3)
    average = WeightAverage({"w": weight}, decay=0.5)
    for n in (1, 2):
        weight.fill_(float(n))
        average.update(n)
    # Decays 1/10 and 2/11: 0.9, then 0.9 * 2/11 + 2 * 9/11.
    expected = 0.9 * 2 / 11 + 2 * 9 / 11
    with average.applied():
        torch.testing.assert_close(weight, torch.full((3,), expected))
    assert torch.equal(weight, torch.full((3,), 2.0))
