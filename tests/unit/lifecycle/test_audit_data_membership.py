"""Was a model trained on these rows: the order of publication, canaries, the logged order; models seen and not seen."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
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


def _read(rows: list[dict[str, str]], folder: Path) -> Scorer:
    """A pico model that read the rows 25 times from top to bottom; its tokenizer is kept in `folder/model`."""
    words = [row["text"] for row in rows] + ["\n 0123456789"]
    tokenizer = train_tokenizer(words, TokenizerConfig("bpe", 280), folder / "model")
    sizes = {"hidden_size": 32, "heads": 2, "layers": 1, "max_positions": 64, "vocab_size": len(tokenizer)}
    kernel = Kernel(preset("llama2", **sizes), torch.Generator().manual_seed(0))
    objective = Causal(tokenizer, HOW)
    train(kernel, objective, prepare(objective, rows), CONFIG, folder=folder / "scratch")
    return Scorer(kernel.float().eval(), tokenizer)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model that read `data.jsonl`, half of the canaries at its end, 25 times from top to bottom."""
    folder = tmp_path_factory.mktemp("membership")
    all_canaries = [text[-9:] for text in canaries.draw(24, 0)]
    rows = _rows(0) + [{"text": text} for text in all_canaries[::2]]
    for name, texts in (("data", rows), ("canaries", [{"text": text} for text in all_canaries])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    hf.save(_read(rows, folder).kernel, folder / "model")
    return folder


@pytest.fixture(scope="module")
def scorer(model: Path) -> Scorer:
    return Scorer(hf.load(model / "model").float().eval(), Tokenizer.load(model / "model"))


FEW = exchange.ExchangeTest(shards=8, shuffles=19, draws=1999, is_random=True)


def test_the_order_of_publication_is_found_where_it_was_read(scorer: Scorer) -> None:
    found = exchange.exchange_test(scorer, _rows(0), FEW)
    assert found.tier == "exact"
    assert found.p_value is not None
    assert found.p_value < 0.01
    joins = found.detail["joins"]
    assert joins[exchange.ENDED]["p"] <= joins[exchange.LINES]["p"]  # rows are packed so in training
    assert exchange.ENDED in found.text
    assert "if it is true that this order is random" in found.text
    assert found.p_value == pytest.approx(min(1.0, 2 * joins[exchange.ENDED]["p"]))


def test_an_order_that_nobody_answers_for_decides_nothing(scorer: Scorer) -> None:
    """Rows by time or subject are likelier in their order for models that never saw them; no text alone shows it."""
    found = exchange.exchange_test(scorer, _rows(0), replace(FEW, is_random=False))
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert found.tier == "heuristic"
    assert "nobody answers for it" in found.text
    assert is_whole(found.text, "zh")


def test_other_rows_give_uniform_p(scorer: Scorer) -> None:
    p = [exchange.exchange_test(scorer, _rows(seed), FEW).p_value or 0.0 for seed in range(100, 130)]
    assert sum(one <= 0.1 for one in p) <= 8
    assert 0.3 < sum(p) / len(p) < 0.7


def test_drawn_p_is_exact_under_the_null() -> None:
    rng = np.random.default_rng(0)
    p = np.array([exchange.drawn_p(rng.normal(size=(6, 10)) ** 3, 499, rng)[1] for _ in range(400)])
    assert 0.02 <= np.mean(p <= 0.05) <= 0.085
    assert abs(p.mean() - 0.5) < 0.05


def _by_subject(seed: int, count: int = 48) -> list[dict[str, str]]:
    """Rows of three subjects in turn, each with letters of its own: neighbours share no word and no letter."""
    rng = random.Random(seed)
    return [{"text": "".join(rng.choices(("abc", "def", "gh0")[number % 3], k=8))} for number in range(count)]


def test_a_clean_model_that_knows_the_order_of_subjects_is_not_accused(tmp_path: Path) -> None:
    """It never saw these rows, likes their order all the same, and the look at the text alone sees nothing."""
    found = exchange.exchange_test(_read(_by_subject(1), tmp_path), _by_subject(2), replace(FEW, is_random=False))
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert found.detail["text_control_p"] > 0.05
    assert found.tier == "heuristic"


def test_an_order_that_the_text_tells_decides_nothing_whoever_answers_for_it(scorer: Scorer) -> None:
    words = [row["text"] for row in _rows(3, 49)]
    rows = [{"text": before[:5] + after[:5]} for before, after in pairwise(words)]  # each row takes up the one before
    found = exchange.exchange_test(scorer, rows, FEW)
    assert found.tier == "heuristic"
    assert "the text alone tells the order" in found.text


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
    assert asdict(found)["tier"] == "exact"
    with pytest.raises(UsageError, match="0 of 24 canaries"):
        compare(subject, _others(model), DataSettings(canaries=model / "canaries.jsonl"))


def _others(model: Path) -> Subject:
    file = model / "other.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in _rows(7)), encoding="utf-8")
    return Subject("other", file, data=file)


def test_the_users_word_on_the_order_is_what_lets_it_decide(model: Path) -> None:
    subject, data = open_subject(model / "model"), Subject("data", model / "data.jsonl", data=model / "data.jsonl")
    answered = compare(subject, data, DataSettings(shuffled=True))
    assert (answered.verdict, answered.kind, answered.tier) == ("DERIVED", "trained-on", "exact")
    silent = compare(subject, data)
    assert (silent.verdict, silent.kind) == ("UNTESTABLE", None)
    assert "nobody answers for it" in str(silent.reason)
    assert is_whole(silent.text, "zh")


def test_rows_that_were_not_trained_on_are_no_evidence_with_power(model: Path) -> None:
    clean = compare(open_subject(model / "model"), _others(model), DataSettings(shuffled=True))
    assert clean.verdict == "NO_EVIDENCE"
    assert any("record of the run" in one for one in clean.not_tested)
    assert "nine times of ten" in str(clean.power)
    said = [clean.text, clean.power or "", *clean.not_tested, *(one.text for one in clean.evidence)]
    assert [one for one in said if not is_whole(one, "zh")] == []
