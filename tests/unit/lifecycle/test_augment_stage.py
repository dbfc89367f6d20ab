"""`data.augment`: what is written for every split, which rows change, back-translation through an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nacre.data.augment.vary import Rates
from nacre.data.read import read
from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError, DataError
from nacre.lifecycle.prepare.augment import AugmentConfig, BackTranslation
from nacre.lifecycle.prepare.augmenting import augmented
from nacre.recipe.stage import Work

pytest.importorskip("rjieba")
ROWS = [
    {"text": "Please send the second invoice again", "label": "invoice"},
    {"text": "包裹还没有到，请帮我查一下物流信息", "label": "parcel"},
    {"text": "1234", "label": "number"},
]


def work_in(folder: Path, **inputs: Path) -> Work:
    for name in ("out", "scratch"):
        (folder / name).mkdir()
    return Work({"data": folder / "data", **inputs}, folder / "out", folder / "scratch", seed=3, engines=EngineRoom())


def data_in(folder: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    (folder / "data").mkdir()
    for split in ("train", "test"):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "data" / "labels.json").write_text('["invoice", "number", "parcel"]')


def test_training_rows_get_versions_and_held_out_ones_stay(tmp_path: Path) -> None:
    data_in(tmp_path)
    metrics = augmented(AugmentConfig(Rates(delete=0.5), copies=2), work_in(tmp_path))
    rows = list(read(tmp_path / "out" / "train.jsonl"))
    assert list(read(tmp_path / "out" / "test.jsonl")) == ROWS
    assert [row for row in rows if row in ROWS] == ROWS
    assert all(row["label"] == "invoice" for row in rows if "invoice" in row["text"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["done"]["train"]["unchanged"] >= 2  # the number has nothing to change
    assert metrics["train_rows"] == len(rows) == 3 + report["done"]["train"]["versions"]
    assert (tmp_path / "out" / "labels.json").is_file()


def test_noise_on_the_test_rows_keeps_their_number(tmp_path: Path) -> None:
    data_in(tmp_path)
    augmented(AugmentConfig(Rates(swap=0.9), splits=("test",), keep=False), work_in(tmp_path))
    noisy = list(read(tmp_path / "out" / "test.jsonl"))
    assert [row["label"] for row in noisy] == [row["label"] for row in ROWS]
    assert noisy[0]["text"] != ROWS[0]["text"]
    assert list(read(tmp_path / "out" / "train.jsonl")) == ROWS


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        data_in(tmp_path / name)
        augmented(AugmentConfig(Rates(delete=0.3, swap=0.3)), work_in(tmp_path / name))
        texts.append((tmp_path / name / "out" / "train.jsonl").read_bytes())
    assert texts[0] == texts[1]


def test_back_translation_by_an_engine(tmp_path: Path) -> None:
    data_in(tmp_path)
    (tmp_path / "engine").mkdir()
    answers = [
        ["into French[^\n]*\n\nPlease", "Veuillez renvoyer la deuxieme facture"],
        ["into English[^\n]*\n\nVeuillez", "Kindly send the second bill once more"],
        ["into French[^\n]*\n\n包裹", "colis"],
        ["into French[^\n]*\n\n1234", "1234"],
        ["into English[^\n]*\n\n1234", "1234"],
        ["\n\ncolis", "包裹"],
    ]
    (tmp_path / "engine" / "engine.json").write_text(json.dumps({"engine": "echo", "answers": answers}))
    config = AugmentConfig(back_translation=BackTranslation(via="French"))
    augmented(config, work_in(tmp_path, engine=tmp_path / "engine"))
    rows = list(read(tmp_path / "out" / "train.jsonl"))
    assert rows == [*ROWS, {"text": "Kindly send the second bill once more", "label": "invoice"}]
    done = json.loads((tmp_path / "out" / "report.json").read_text())["done"]["train"]
    assert done == {
        "versions": 1, "back-translations left out: another length": 1, "back-translations left out: the same text": 1,
    }  # fmt: skip


def test_an_english_text_that_quotes_chinese_comes_back_in_english(tmp_path: Path) -> None:
    data_in(tmp_path, [{"text": "What does the word 包裹 on my invoice mean, please?", "label": "invoice"}])
    (tmp_path / "engine").mkdir()
    answers = [
        ["into French", "Que veut dire 包裹 sur ma facture"],
        ["into English[^\n]*\n\nQue", "What is the meaning of 包裹 on my bill?"],
        ["into Chinese", "发票上的包裹是什么意思？请告诉我，谢谢"],
    ]
    (tmp_path / "engine" / "engine.json").write_text(json.dumps({"engine": "echo", "answers": answers}))
    config = AugmentConfig(back_translation=BackTranslation(via="French"))
    augmented(config, work_in(tmp_path, engine=tmp_path / "engine"))
    assert [row["text"] for row in read(tmp_path / "out" / "train.jsonl")][1:] == [
        "What is the meaning of 包裹 on my bill?"
    ]


def test_chinese_is_mistyped_wherever_it_stands_in_the_data(tmp_path: Path) -> None:
    pytest.importorskip("pypinyin")
    late = {"text": "他她它是事市试，在再，做作坐", "label": "parcel"}
    data_in(tmp_path, [{"text": f"an order numbered {number}", "label": "invoice"} for number in range(201)] + [late])
    augmented(AugmentConfig(rates=Rates(characters=0.9), keep=False), work_in(tmp_path))
    assert list(read(tmp_path / "out" / "train.jsonl"))[-1]["text"] != late["text"]


def test_what_cannot_be_meant_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is changed"):
        AugmentConfig()
    data_in(tmp_path)
    work = work_in(tmp_path)
    with pytest.raises(DataError, match=r"no valid\.jsonl"):
        augmented(AugmentConfig(Rates(delete=0.1), splits=("valid",)), work)
    with pytest.raises(DataError, match="no text in 'body'"):
        augmented(AugmentConfig(Rates(delete=0.1), varied="body"), work)
    with pytest.raises(ConfigError, match="no engine"):
        augmented(AugmentConfig(back_translation=BackTranslation()), work)
