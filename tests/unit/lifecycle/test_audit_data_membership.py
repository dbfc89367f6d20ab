"""Was a model trained on these rows: the order of publication, canaries, the logged order; models seen and not seen."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from nacre.data.tokenizer import Tokenizer, TokenizerConfig
from nacre.data.tokenizer import train as train_tokenizer
from nacre.errors import UsageError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.audit.data import canaries, compare, exchange
from nacre.lifecycle.audit.data.scoring import Scorer
from nacre.lifecycle.audit.data.settings import DataSettings
from nacre.lifecycle.audit.opening import open_subject
from nacre.lifecycle.audit.said import is_whole
from nacre.lifecycle.audit.subject import Subject
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig

HOW = CausalConfig(context=48, packing="stream")
CONFIG = TrainConfig(
    epochs=25,
    batch_size=4,
    lr=1e-2,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.0,
    shuffle=False,
    checkpoint_seconds=1e6,
)


def _rows(seed: int, count: int = 48) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [{"text": "".join(rng.choices("abcdefgh", k=8))} for _ in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model that read `data.jsonl`, half of the canaries at its end, 25 times from top to bottom."""
    folder = tmp_path_factory.mktemp("membership")
    all_canaries = [text[-9:] for text in canaries.draw(24, 0)]
    rows = _rows(0) + [{"text": text} for text in all_canaries[::2]]
    for name, texts in (("data", rows), ("canaries", [{"text": text} for text in all_canaries])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    words = [row["text"] for row in rows] + ["\n 0123456789"]
    tokenizer = train_tokenizer(words, TokenizerConfig("bpe", 280), folder / "model")
    sizes = {"hidden_size": 32, "heads": 2, "layers": 1, "max_positions": 64, "vocab_size": len(tokenizer)}
    kernel = Kernel(preset("llama2", **sizes), torch.Generator().manual_seed(0))
    objective = Causal(tokenizer, HOW)
    lines = [{"text": row["text"] + "\n"} for row in rows]
    train(kernel, objective, prepare(objective, lines), CONFIG, folder=folder / "scratch")
    hf.save(kernel, folder / "model")
    return folder


@pytest.fixture(scope="module")
def scorer(model: Path) -> Scorer:
    return Scorer(hf.load(model / "model").float().eval(), Tokenizer.load(model / "model"))


FEW = exchange.ExchangeTest(shards=8, shuffles=19, draws=1999)


@pytest.mark.xfail(reason="missed when measured (p = .095): the run ends each row, the test scores rows as one text")
def test_the_order_of_publication_is_found_where_it_was_read(scorer: Scorer) -> None:
    found = exchange.exchange_test(scorer, _rows(0), FEW)
    assert found.tier == "exact"
    assert found.p_value is not None
    assert found.p_value < 0.01


def test_other_rows_give_uniform_p(scorer: Scorer) -> None:
    p = [exchange.exchange_test(scorer, _rows(seed), FEW).p_value or 0.0 for seed in range(100, 130)]
    assert sum(one <= 0.1 for one in p) <= 8
    assert 0.3 < sum(p) / len(p) < 0.7


def test_drawn_p_is_exact_under_the_null() -> None:
    rng = np.random.default_rng(0)
    p = np.array([exchange.drawn_p(rng.normal(size=(6, 10)) ** 3, 499, rng)[1] for _ in range(400)])
    assert 0.02 <= np.mean(p <= 0.05) <= 0.085
    assert abs(p.mean() - 0.5) < 0.05


def test_an_order_that_the_text_tells_decides_nothing(scorer: Scorer) -> None:
    words = [row["text"] for row in _rows(3, 49)]
    rows = [{"text": before[:5] + after[:5]} for before, after in pairwise(words)]  # each row takes up the one before
    found = exchange.exchange_test(scorer, rows, FEW)
    assert found.tier == "heuristic"
    assert "decides nothing" in found.text


def test_planted_canaries_rank_above_those_kept_back(scorer: Scorer) -> None:
    texts = [text[-9:] for text in canaries.draw(24, 0)]
    found = canaries.canary_test(scorer, texts, [True, False] * 12)
    assert found.p_value is not None
    assert found.p_value < 0.01
    rng = random.Random(0)
    p = []
    for seed in range(30):
        strange = [text[-9:] for text in canaries.draw(16, 1000 + seed)]
        flags = [number < 8 for number in range(16)]
        rng.shuffle(flags)
        p.append(canaries.canary_test(scorer, strange, flags, draws=199).p_value or 0.0)
    assert sum(one <= 0.1 for one in p) <= 8
    assert 0.3 < sum(p) / len(p) < 0.7


def test_one_planted_canary_has_the_p_of_its_rank() -> None:
    likely = np.arange(10.0)
    assert canaries.planted_p(likely, likely == 9, 9_999, 0) == pytest.approx(0.1)
    assert canaries.planted_p(likely, likely == 7, 9_999, 0) == pytest.approx(0.3)
    assert canaries.exposure(9.0, likely[:9]) == pytest.approx(np.log2(10))


def test_stage_four_of_a_model_and_a_data_set(model: Path) -> None:
    subject = open_subject(model / "model")
    data = Subject("data", model / "data.jsonl", data=model / "data.jsonl")
    found = compare(subject, data, DataSettings(canaries=model / "canaries.jsonl"))
    assert (found.verdict, found.kind, found.detail["model"]) == ("DERIVED", "trained-on", "subject")
    assert compare(data, subject, DataSettings(canaries=model / "canaries.jsonl")).detail["model"] == "reference"
    assert is_whole(found.text, "zh")
    other = model / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in _rows(7)), encoding="utf-8")
    clean = compare(subject, Subject("other", other, data=other))
    assert clean.verdict == "NO_EVIDENCE"
    assert any("record of the run" in one for one in clean.not_tested)
    with pytest.raises(UsageError, match="0 of 24 canaries"):
        compare(subject, Subject("other", other, data=other), DataSettings(canaries=model / "canaries.jsonl"))
    assert asdict(found)["tier"] == "exact"
