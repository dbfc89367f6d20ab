"""The stage `tokenizer.train` and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizer_texts import TEXTS

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.data.tokenizer_report import composition, language_of, measure
from nacre.errors import ConfigError, DataError
from nacre.lifecycle.prepare.tokenizer import TrainTokenizerConfig, train_tokenizer
from nacre.recipe import catalogue
from nacre.recipe.config import build
from nacre.recipe.stage import Work

CONFIG = TrainTokenizerConfig(algorithm="bpe", style="gpt", vocab_size=500)


def dataset(folder: Path, *, valid: bool = True) -> Path:
    folder.mkdir()
    rows = [json.dumps({"text": text, "label": "x"}, ensure_ascii=False) for text in TEXTS]
    (folder / "train.jsonl").write_text("\n".join(rows[:-4]) + "\n", encoding="utf-8")
    if valid:
        (folder / "valid.jsonl").write_text("\n".join(rows[-4:]) + "\n", encoding="utf-8")
    (folder / "labels.json").write_text('["x"]')
    return folder


def work(tmp_path: Path, name: str, **inputs: Path) -> Work:
    for part in ("out", "scratch"):
        (tmp_path / name / part).mkdir(parents=True)
    return Work(inputs=inputs, out=tmp_path / name / "out", scratch=tmp_path / name / "scratch")


def test_the_stage_is_in_the_catalogue() -> None:
    assert catalogue.find("tokenizer.train") is train_tokenizer
    built = build(TrainTokenizerConfig, {"algorithm": "wordpiece", "style": "bert", "extra_special": ["[X]"]}, "step")
    assert built == TrainTokenizerConfig(algorithm="wordpiece", style="bert", extra_special=("[X]",))


def test_it_trains_reports_and_compares(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    other = tmp_path / "other"
    train(TEXTS[:6], TokenizerConfig(algorithm="wordpiece", style="bert", vocab_size=500), other)
    one = work(tmp_path, "one", data=data, compare=other)
    metrics = train_tokenizer(CONFIG, one)
    assert sorted(path.name for path in one.out.iterdir()) == [
        "report.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    report = json.loads((one.out / "report.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.load(one.out)
    assert metrics["vocabulary"] == report["vocabulary"] == len(tokenizer)
    assert report["held_out"] == {"from": "valid", "texts": 4, "left_out": 0}
    fit = report["fit"]["all"]
    held_out = TEXTS[-4:]
    assert fit["texts"] == fit["exact"] == 4
    assert fit["tokens"] == sum(len(ids) for ids in tokenizer.encode_batch(held_out, add_special=False))
    assert fit["utf8_bytes"] == sum(len(text.encode()) for text in held_out)
    assert metrics["bytes_per_token"] == fit["bytes_per_token"] > 1
    assert metrics["unknown_rate"] == 0
    assert report["compared"]["kind"] == "wordpiece"
    assert report["compared"]["fit"]["all"]["unknown_rate"] > 0
    assert sum(report["composition"].values()) == len(tokenizer)


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    found = []
    for name in ("a", "b"):
        one = work(tmp_path, name, data=data)
        train_tokenizer(CONFIG, one)
        found.append({path.name: path.read_bytes() for path in one.out.iterdir()})
    assert found[0] == found[1]


def test_without_a_validation_split_some_texts_are_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [json.dumps({"source": f"pay order {number}", "target": f"支付订单{number}"}) for number in range(200)]
    (folder / "all.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    one = work(tmp_path, "one", data=folder)
    metrics = train_tokenizer(CONFIG, one)
    report = json.loads((one.out / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["n_texts"] + report["held_out"]["texts"] == 400
    assert 0 < report["held_out"]["texts"] < 30
    assert "bytes_per_token_zh" in metrics or "bytes_per_token_latin" in metrics


def test_check_tells_mistakes_before_the_work(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    assert train_tokenizer.check is not None
    train_tokenizer.check(CONFIG, {"data": data})
    with pytest.raises(DataError, match="no field"):
        train_tokenizer.check(TrainTokenizerConfig(fields=("txt",)), {"data": data})
    with pytest.raises(ConfigError, match="style"):
        train_tokenizer.check(TrainTokenizerConfig(algorithm="wordpiece"), {})


def test_a_small_vocabulary_is_a_remark_of_the_record(tmp_path: Path) -> None:
    one = work(tmp_path, "one", data=dataset(tmp_path / "data"))
    train_tokenizer(TrainTokenizerConfig(algorithm="bpe", style="gpt", vocab_size=30_000), one)
    assert "of the 30,000 asked for" in one.notes[0]


def test_measure_by_language_beside_bytes(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, TokenizerConfig(algorithm="unigram", style="llama", vocab_size=800), tmp_path)
    fits = measure(tokenizer, ["pay now", "现在支付", "𠮷"])
    assert {name: fit.texts for name, fit in fits.items()} == {"latin": 1, "zh": 2, "all": 3}
    assert fits["zh"].to_dict()["byte_tokens_per_character"] == pytest.approx((12 + 4) / 5)
    assert fits["all"].exact == 3


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello", "latin"),
        ("naïve été", "latin"),
        ("银行卡", "zh"),
        ("用 iPhone 付款", "zh"),
        ("the word 卡 in an English sentence", "latin"),
        ("Привет", "other"),
        ("123 !?", "other"),
        ("", "other"),
    ],
)
def test_language_by_script(text: str, language: str) -> None:
    assert language_of(text) == language


def test_composition_counts_every_token_once(tmp_path: Path) -> None:
    for algorithm, style, size in (("bpe", "gpt", 600), ("wordpiece", "bert", 600), ("unigram", "t5", 900)):
        tokenizer = train(
            TEXTS, TokenizerConfig(algorithm=algorithm, style=style, vocab_size=size), tmp_path / algorithm
        )
        counts = composition(tokenizer)
        assert sum(counts.values()) == len(tokenizer)
        assert counts["special"] == len(tokenizer.special_ids)
        assert counts["latin"] > 40
        assert counts["han"] > 20
        if algorithm != "wordpiece":
            assert counts["bytes"] > 100
