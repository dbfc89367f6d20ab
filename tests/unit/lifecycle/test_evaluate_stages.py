"""Evaluation stages on pico kernels: each writes its artifact, counts what it did not read, and repeats itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.data import tokenizer as tokenizers
from nacre.data.tokenizer_config import TokenizerConfig
from nacre.data.write import write_json, write_jsonl
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.evaluate import stages
from nacre.recipe.stage import Work

TEXTS = [
    "退款什么时候到账",
    "where is my order",
    "请开一张发票",
    "the parcel was lost",
    "密码忘了怎么办",
    "change my address",
] * 4
LABELS = ("refund", "order", "invoice")
SIZES = {"hidden_size": 16, "layers": 1, "heads": 2}
QUICK = stages.Resampling(resamples=100)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers, pico kernels with a tokenizer beside them, and data sets."""
    folder = tmp_path_factory.mktemp("evaluate")
    made = {
        style: tokenizers.train(
            TEXTS, TokenizerConfig(style=style, algorithm=algorithm, vocab_size=600), folder / style
        )
        for style, algorithm in (("bert", "wordpiece"), ("llama", "bpe"), ("t5", "unigram"))
    }
    torch.manual_seed(0)
    tags = ("O", "B-PER", "I-PER")
    seer = preset("vit", image_size=8, patch_size=4, channels=1, **SIZES)
    kernels = {
        "classifier": Kernel(_sized("bert", made["bert"])).with_head("classify", labels=LABELS, pooling="mean"),
        "tagger": Kernel(_sized("bert", made["bert"])).with_head("tag", labels=tags),
        "writer": Kernel(_sized("llama3", made["llama"])),
        "translator": Kernel(_sized("t5-v1.1", made["t5"])),
        "seer": Kernel(seer).with_head("classify", labels=("0", "1")),
    }
    for (name, kernel), style in zip(kernels.items(), ("bert", "bert", "llama", "t5", None), strict=True):
        hf.save(kernel, folder / name)
        if style:
            made[style].save(folder / name)
    _data(folder / "intents", [{"text": text, "label": LABELS[i % 3]} for i, text in enumerate(TEXTS)])
    _data(folder / "texts", [{"text": text} for text in TEXTS])
    _data(folder / "pairs", [{"source": "where is my order", "target": "我的订单在哪里"}] * 4)
    _data(folder / "entities", [{"tokens": list("张三在北京"), "tags": ["B-PER", "I-PER", "O", "O", "O"]}] * 3)
    _data(folder / "digits", [{"pixels": [[i % 9] * 8] * 8, "label": str(i % 2)} for i in range(8)])
    return folder


def _sized(name: str, tokenizer: tokenizers.Tokenizer) -> Any:
    ids = {"pad_id": tokenizer.pad_id, "bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    if name.startswith("t5"):
        ids["decoder_start_id"] = tokenizer.pad_id
    return preset(name, vocab_size=len(tokenizer), max_positions=64, **SIZES, **ids)


def _data(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    for split in ("train", "test"):
        write_jsonl(folder / f"{split}.jsonl", rows)
    step = {"step": "clean", "rows_in": 30, "rows_out": 24, "dropped": {"too short": {"count": 6, "samples": []}}}
    write_json(folder / "report.json", {"steps": [step]})


def work(home: Path, out: Path, **inputs: str) -> Work:
    out.mkdir()
    return Work({name: home / value for name, value in inputs.items()}, out, out)


def run(stage: Any, config: Any, home: Path, out: Path, **inputs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the stage returns, what it wrote to metrics.json)"""
    returned = stage(config, work(home, out, **inputs))
    return dict(returned), json.loads((out / "metrics.json").read_text(encoding="utf-8"))


CASES = [
    (stages.classify, stages.EvaluateConfig(intervals=QUICK), "classifier", "intents", "accuracy"),
    (stages.tag, stages.EvaluateConfig(intervals=QUICK), "tagger", "entities", "entity_f1"),
    (stages.language, stages.EvaluateConfig(intervals=QUICK), "writer", "texts", "bits_per_byte"),
    (
        stages.generate,
        stages.GenerateConfig(intervals=QUICK, samples=4, max_new_tokens=8, checks="poem", language="zh"),
        "writer", "texts", "valid_form",
    ),
    (
        stages.generate,
        stages.GenerateConfig(intervals=QUICK, samples=4, max_new_tokens=8, checks="python", prompts=("x = ",)),
        "writer", "texts", "parses",
    ),
    (
        stages.translate,
        stages.TranslateConfig(intervals=QUICK, target_language="zh", max_new_tokens=8),
        "translator", "pairs", "bleu",
    ),
    (stages.images, stages.ImagesConfig(intervals=QUICK), "seer", "digits", "accuracy"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "config", "model", "data", "figure"), CASES)
def test_every_stage_writes_its_artifact_and_repeats_itself(
    stage: Any, config: Any, model: str, data: str, figure: str, home: Path, tmp_path: Path
) -> None:
    returned, figures = run(stage, config, home, tmp_path / "a", model=model, data=data)
    again, _ = run(stage, config, home, tmp_path / "b", model=model, data=data)
    assert returned == again
    assert returned[f"{figure}_low"] <= returned[figure] <= returned[f"{figure}_high"]
    assert figures[figure]["value"] == pytest.approx(returned[figure], abs=1e-6)
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    rows = "samples.jsonl" if stage is stages.generate else "predictions.jsonl"
    assert names == sorted(["metrics.json", rows, "report.html"])
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert str(home) not in page
    assert "too short" in page
    assert 'id="anatomy"' in page


def test_batches_do_not_change_predictions(home: Path, tmp_path: Path) -> None:
    for batch in (1, 7):
        config = stages.EvaluateConfig(batch=batch, intervals=QUICK)
        run(stages.classify, config, home, tmp_path / str(batch), model="classifier", data="intents")
    rows = [
        [json.loads(line) for line in (tmp_path / batch / "predictions.jsonl").read_text("utf-8").splitlines()]
        for batch in ("1", "7")
    ]
    for one, other in zip(*rows, strict=True):
        assert one["id"] == other["id"]
        assert one["predicted"] == other["predicted"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_bits_per_byte_do_not_depend_on_batches(home: Path, tmp_path: Path) -> None:
    found = [
        run(
            stages.language,
            stages.EvaluateConfig(batch=batch, intervals=QUICK),
            home,
            tmp_path / str(batch),
            model="writer",
            data="texts",
        )[0]["bits_per_byte"]
        for batch in (1, 5)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_texts_that_are_cut_are_counted(home: Path, tmp_path: Path) -> None:
    config = stages.EvaluateConfig(context=4, intervals=QUICK)
    _, figures = run(stages.classify, config, home, tmp_path / "a", model="classifier", data="intents")
    assert sum(figures["not_read"]["truncated"].values()) > 0
    assert "were longer than 4 tokens" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")


def test_tagging_reads_long_rows_in_windows(home: Path, tmp_path: Path) -> None:
    config = stages.EvaluateConfig(context=5, intervals=QUICK)
    _, figures = run(stages.tag, config, home, tmp_path / "a", model="tagger", data="entities")
    assert sum(figures["not_read"]["windowed"].values()) == 3
    rows = [json.loads(line) for line in (tmp_path / "a" / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert all(len(row["predicted"]) == 5 and all(row["predicted"]) for row in rows)


def test_unseen_labels_count_as_wrong_and_are_reported(home: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "label": LABELS[i % 3]} for i, text in enumerate(TEXTS)]
    write_jsonl(tmp_path / "test.jsonl", [*rows, {"text": "新的问题", "label": "unheard"}])
    job = work(home, tmp_path / "out", model="classifier")
    job.inputs = {**job.inputs, "data": tmp_path / "test.jsonl"}
    stages.classify(stages.EvaluateConfig(intervals=QUICK), job)
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert figures["unseen_labels"] == {"rows": 1, "labels": ["unheard"]}
    assert "unheard" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": "refund"}] * 3, "one class"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "nothing in common"),
        ([{"text": "a"}], "row 1: the field 'label' is missing"),
        ([], "is empty"),
    ],
)
def test_unusable_test_data_is_an_error(rows: list[dict], message: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = work(home, tmp_path / "out", model="classifier")
    job.inputs = {**job.inputs, "data": tmp_path / "test.jsonl"}
    with pytest.raises(DataError, match=message):
        stages.classify(stages.EvaluateConfig(intervals=QUICK), job)


def test_a_model_with_another_head_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has the head 'lm'"):
        run(
            stages.classify,
            stages.EvaluateConfig(intervals=QUICK),
            home,
            tmp_path / "a",
            model="writer",
            data="intents",
        )
    with pytest.raises(CheckpointError, match="translates nothing"):
        run(
            stages.translate,
            stages.TranslateConfig(intervals=QUICK),
            home,
            tmp_path / "b",
            model="writer",
            data="pairs",
        )


def test_a_missing_split_is_told_before_the_model_is_loaded(home: Path) -> None:
    check = stages.classify.check
    assert check is not None
    with pytest.raises(DataError, match="no split 'dev'"):
        check(stages.EvaluateConfig(split="dev"), {"data": home / "intents"})


def test_baseline_on_the_same_rows_is_compared(home: Path, tmp_path: Path) -> None:
    config = stages.EvaluateConfig(intervals=QUICK)
    run(stages.classify, config, home, tmp_path / "first", model="classifier", data="intents")
    job = work(home, tmp_path / "second", model="classifier", data="intents")
    job.inputs = {**job.inputs, "baseline": tmp_path / "first"}
    stages.classify(config, job)
    figures = json.loads((tmp_path / "second" / "metrics.json").read_text(encoding="utf-8"))
    assert figures["baseline"]["difference"]["value"] == 0
    other = tmp_path / "other"
    write_jsonl(other / "predictions.jsonl", [{"text": "x", "predicted": "refund"}] * len(TEXTS))
    job = work(home, tmp_path / "third", model="classifier", data="intents")
    job.inputs = {**job.inputs, "baseline": other}
    with pytest.raises(DataError, match="not the 24 test rows"):
        stages.classify(config, job)


@pytest.mark.parametrize("bad", [{"batch": 0}, {"limit": 0}, {"context": -1}])
def test_settings_are_checked(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        stages.EvaluateConfig(**bad)
