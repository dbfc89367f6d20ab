"""The order of training: found in the model that was trained in it, uniform for one that was not."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nacre.data.tokenizer import TokenizerConfig
from nacre.data.tokenizer import train as train_tokenizer
from nacre.errors import DataError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.audit.data.order import (
    OrderTest,
    last_steps,
    log_likelihoods,
    order_test,
    permuted_spearman,
    recorded_order,
)
from nacre.lifecycle.audit.said import is_whole
from nacre.lineage.record import Record
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig
from nacre.train.order import Order

CONFIG = TrainConfig(epochs=3, batch_size=4, lr=1e-2, schedule="constant", warmup=0.0, weight_decay=0.0, seed=7)
HOW = CausalConfig(context=24, packing="none")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of random sentences and a pico model trained on it for three epochs."""
    folder = tmp_path_factory.mktemp("order")
    rng = random.Random(0)
    rows = [{"text": " ".join("".join(rng.choices("abcdefgh", k=3)) for _ in range(5))} for _ in range(160)]
    (folder / "data").mkdir()
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = train_tokenizer((row["text"] for row in rows), TokenizerConfig("bpe", 300), folder / "model")
    sizes = {"hidden_size": 32, "heads": 2, "layers": 2, "max_positions": 32, "vocab_size": len(tokenizer)}
    kernel = Kernel(preset("llama2", **sizes), torch.Generator().manual_seed(0))
    objective = Causal(tokenizer, HOW)
    train(kernel, objective, prepare(objective, rows), CONFIG, folder=folder / "scratch")
    hf.save(kernel, folder / "model")
    return folder


def _steps(seed: int, n: int = 160) -> tuple[int, ...]:
    return last_steps(Order(n, 4, 4, seed), 3 * n // 4)


def test_the_recorded_order_is_found(run: Path) -> None:
    found = order_test(run / "model", run / "data", _steps(7), OrderTest(HOW))
    assert found.tier == "exact"
    assert found.p_value is not None
    assert found.p_value < 0.005
    assert found.value is not None
    assert found.value > 0


def test_the_order_of_a_run_that_did_not_shuffle_decides_nothing(run: Path) -> None:
    found = order_test(run / "model", run / "data", _steps(7), OrderTest(HOW, is_random=False))
    assert found.tier == "heuristic"
    assert found.text.endswith("the run did not shuffle, so this decides nothing")
    assert is_whole(found.text, "zh")


def test_other_seeds_give_uniform_p(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    likely = log_likelihoods(run / "model", rows, HOW)
    p = [permuted_spearman(likely, np.array(_steps(seed), dtype=float), 199)[1] for seed in range(100, 160)]
    assert sum(one <= 0.05 for one in p) <= 8
    assert 0.38 < sum(p) / len(p) < 0.62


def test_the_order_is_recomputed_from_the_record(run: Path) -> None:
    record = Record(
        "m", 1, "model", "sha256:0", stage="pretrain.causal", seed=5,
        config={"train": asdict(replace(CONFIG, seed=2)), "objective": asdict(HOW), "limit": None},
        metrics={"steps": 120},
    )  # fmt: skip
    found = recorded_order(record, 160)
    assert found.last_step == _steps(7)
    assert found.examples == HOW
    with pytest.raises(DataError, match="grouped"):
        recorded_order(replace(record, config={"train": {**asdict(CONFIG), "bucket": True}}), 160)
    with pytest.raises(DataError, match="made by"):
        recorded_order(replace(record, stage="tune.classify"), 160)


def test_an_order_of_other_rows_is_refused(run: Path) -> None:
    with pytest.raises(DataError, match="the order is of"):
        order_test(run / "model", run / "data", _steps(7, 80), OrderTest(HOW))


def test_examples_of_a_cut_epoch_keep_their_earlier_step() -> None:
    order = Order(10, 2, 2, 0)
    steps = last_steps(order, 7)
    assert sorted(steps)[-1] == 6
    assert sum(step >= 5 for step in steps) == 4
    assert min(last_steps(order, 2)) == -1
