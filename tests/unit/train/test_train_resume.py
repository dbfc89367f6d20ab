"""A run that was cut short and taken up again is the same run, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from train_stub import NextId, StubBatch, StubKernel, examples, weights

from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import Loss
from nacre.train.result import Interrupted, TrainResult

VALID = examples(9, seed=1)


class Killed(BaseException):
    pass


class Fatal(NextId):
    """Dies without warning at the n-th forward pass."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(noise=0.2)
        self.left = after

    def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed
        return super().loss(kernel, batch)


def run(folder: Path, objective: NextId, **options: Any) -> tuple[TrainResult, dict[str, Tensor]]:
    base = {"max_steps": 11, "batch_size": 8, "micro_batch": 2, "eval_every": 4, "log_every": 3, "lr": 0.02}
    base |= {"checkpoint_every": 3, "patience": 50}
    torch.manual_seed(time.monotonic_ns() % 2**31)  # whatever state the process is in must not matter
    kernel = StubKernel(dropout=0.3)
    result = train(kernel, objective, examples(30), TrainConfig.of(**{**base, **options}), valid=VALID, folder=folder)
    return result, weights(kernel)


def assert_same(a: tuple[TrainResult, dict[str, Tensor]], b: tuple[TrainResult, dict[str, Tensor]]) -> None:
    assert a[0].history == b[0].history
    assert (a[0].steps, a[0].best, a[0].tokens) == (b[0].steps, b[0].best, b[0].tokens)
    for name, weight in a[1].items():
        assert torch.equal(weight, b[1][name]), name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kills=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    options=st.sampled_from(
        [
            {},
            {"optimizer": "muon", "ema": 0.9},
            {"bucket": True, "schedule": "wsd"},
            {"precision": "bf16"},
            {"final": "last", "optimizer": "sgd"},
            {"unfreeze_every": 3},
        ]
    ),
)
def test_trap_44_a_kill_at_any_forward_pass_changes_nothing(kills: list[int], options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        undisturbed = run(Path(name) / "a", Fatal(), **options)
        for kill in kills:
            try:
                run(Path(name) / "b", Fatal(kill), **options)
            except Killed:
                continue
        assert_same(run(Path(name) / "b", Fatal(), **options), undisturbed)


_CHILD = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from train_stub import NextId, StubKernel, examples, weights
from nacre.train.config import TrainConfig
from nacre.train.loop import train
torch.set_num_threads(1)
class Slow(NextId):
    def loss(self, kernel, batch):
        print("pass", flush=True)
        return super().loss(kernel, batch)
kernel = StubKernel(dropout=0.3)
config = TrainConfig(
    epochs=3, batch_size=8, micro_batch=2, eval_every=5, lr=0.02, checkpoint_every=2, workers=2, log_every=1
)
result = train(kernel, Slow(noise=0.2), examples(30), config, valid=examples(9, seed=1), folder=Path({folder!r}))
torch.save((weights(kernel), result.history), {out!r})
"""


def child(folder: Path, out: Path) -> subprocess.Popen[str]:
    code = _CHILD.format(here=str(Path(__file__).parent), folder=str(folder), out=str(out))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def stop_after(process: subprocess.Popen[str], passes: int, number: signal.Signals) -> str:
    assert process.stdout is not None
    for _ in range(passes):
        if not process.stdout.readline():
            break
    process.send_signal(number)
    process.stdout.read()
    _, errors = process.communicate()
    return errors


@pytest.mark.slow
def test_trap_44_kill_9_with_two_workers_mid_epoch(tmp_path: Path) -> None:
    process = child(tmp_path / "whole", tmp_path / "whole.pt")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    for passes in (10, 27):
        process = child(tmp_path / "cut", tmp_path / "cut.pt")
        stop_after(process, passes, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    process = child(tmp_path / "cut", tmp_path / "cut.pt")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    (expected, history), (found, history_found) = (
        torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "cut.pt")
    )
    assert history == history_found
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_after_the_step_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    process = child(tmp_path / "run", tmp_path / "out.pt")
    errors = stop_after(process, 13, number)
    assert "training was interrupted after step" in errors
    assert "DataLoader" not in errors
    step = int(errors.split("after step ")[1].split(";")[0])
    assert (tmp_path / "run" / f"step-{step:08d}" / "checkpoint.json").exists()


def test_a_request_to_stop_raises_after_the_step(tmp_path: Path) -> None:
    class Stopping(Fatal):
        def loss(self, kernel: nn.Module, batch: StubBatch) -> Loss:
            if self.left == 1:
                signal.raise_signal(signal.SIGINT)
            self.left = None if self.left is None else self.left - 1
            return NextId.loss(self, kernel, batch)

    undisturbed = run(tmp_path / "a", Fatal())
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path / "b", Stopping(6))
    assert stopped.value.exit_code == 130  # as of every command that Ctrl-C ends
    assert stopped.value.step == 2  # 4 parts a step: the signal came in the second
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["step-00000002"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same(run(tmp_path / "b", Fatal()), undisturbed)


def test_workers_change_nothing(tmp_path: Path) -> None:
    assert_same(run(tmp_path / "a", Fatal()), run(tmp_path / "b", Fatal(), workers=2))


def test_evaluating_more_often_does_not_change_what_is_trained(tmp_path: Path) -> None:
    _, often = run(tmp_path / "a", Fatal(), eval_every=1, final="last")
    _, rarely = run(tmp_path / "b", Fatal(), eval_every=11, final="last")
    assert all(torch.equal(often[name], rarely[name]) for name in often)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path, Fatal())
    n_evaluated = -(-len(VALID) // 2)
    assert_same(run(tmp_path, Fatal(after=n_evaluated)), first)
