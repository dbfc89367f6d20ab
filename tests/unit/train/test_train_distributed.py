"""Two processes train the same model as one, from the same parts of each batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

_CHILD = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from train_stub import NextId, StubKernel, examples, weights
from nacre.train.config import TrainConfig
from nacre.train.loop import train
torch.set_num_threads(1)
kernel = StubKernel(dropout=0.2, dtype=torch.float64, seed=int(sys.argv[2]))
config = TrainConfig(**json.loads(sys.argv[1]))
result = train(kernel, NextId(noise=0.3), examples(19), config, valid=examples(7, seed=1), folder=Path({folder!r}))
if sys.argv[2] == "0":
    torch.save((weights(kernel), result.history, result.tokens), {out!r})
"""
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "micro_batch": 4, "lr": 0.05, "clip_norm": 0.3, "log_every": 1}


def run(folder: Path, size: int, port: int, **options: Any) -> Any:
    """What `size` processes trained; each starts from other weights, which the first one's replace."""
    out = folder / f"{size}.pt"
    folder.mkdir(exist_ok=True)
    code = _CHILD.format(here=str(Path(__file__).parent), folder=str(folder / str(size)), out=str(out))
    children = []
    for rank in range(size):
        place = {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in place.items()}}
        command = [sys.executable, "-c", code, json.dumps({**OPTIONS, **options}), str(rank)]
        children.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [child.communicate(timeout=300)[1] for child in children]
    assert not any(child.returncode for child in children), "\n".join(errors)
    return torch.load(out, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"optimizer": "muon", "ema": 0.9}], ids=["adamw", "muon"])
def test_traps_03_and_31_two_processes_equal_one(tmp_path: Path, free_port: int, options: dict[str, Any]) -> None:
    """Unequal counts per process, a last step of which one process has no part, clipping by the global norm."""
    weights_1, history_1, tokens_1 = run(tmp_path, 1, free_port, **options)
    weights_2, history_2, tokens_2 = run(tmp_path, 2, free_port, **options)
    assert tokens_1 == tokens_2
    assert any(row["grad_norm"] > OPTIONS["clip_norm"] for row in history_1 if "grad_norm" in row)
    for one, two in zip(history_1, history_2, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, abs=1e-6), name
    for name, weight in weights_1.items():
        torch.testing.assert_close(weights_2[name], weight, rtol=0, atol=1e-6)
