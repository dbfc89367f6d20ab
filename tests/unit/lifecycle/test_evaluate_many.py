"""Ensembles and forgetting: figures against plain counting, reports in both languages, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_kit import CHINESE, ENGLISH, kernel, tokenizer

from nacre.data.write import write_json, write_jsonl
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.kernel import hf
from nacre.lifecycle.evaluate.ensemble import EnsembleConfig, check_ensemble
from nacre.lifecycle.evaluate.forgetting import ForgettingConfig, check_forgetting
from nacre.lifecycle.evaluate.measured import Setting
from nacre.lifecycle.evaluate.measured_ensemble import averaged, log_features
from nacre.lifecycle.evaluate.measured_forgetting import Learnt, forgetting, summary
from nacre.lifecycle.evaluate.stages import Resampling
from nacre.metrics.bootstrap import Bootstrap
from nacre.recipe.catalogue import find
from nacre.recipe.stage import Work

QUICK = Resampling(resamples=100)


def model(folder: Path, labels: tuple[str, ...], seed: int) -> Path:
    import torch

    torch.manual_seed(seed)
    made = kernel("bert", "none").with_head("classify", labels=labels, pooling="mean")
    with torch.no_grad():
        for one in made.parameters():
            one.add_(0.2 * torch.randn(one.shape, generator=torch.Generator().manual_seed(seed)))
    hf.save(made, folder)
    tokenizer("bert").save(folder)
    return folder


def data(folder: Path, labels: tuple[str, ...] = ("en", "zh"), splits: tuple[str, ...] = ("valid", "test")) -> Path:
    rows = [{"text": text, "label": labels[number % len(labels)]} for number, text in enumerate(ENGLISH + CHINESE)]
    for split in splits:
        write_jsonl(folder / f"{split}.jsonl", rows)
    write_json(folder / "labels.json", list(labels))
    return folder


def ran(stage: str, config: Any, inputs: dict[str, Path], out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = find(stage)
    assert found.check is not None
    found.check(config, inputs)
    out.mkdir(parents=True)
    metrics = dict(found(config, Work(inputs, out, out / "scratch")))
    return metrics, json.loads((out / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_ensemble_is_the_mean_of_its_members_beside_each_of_them(tmp_path: Path, language: Any) -> None:
    one, two = model(tmp_path / "one", ("en", "zh"), 1), model(tmp_path / "two", ("zh", "en"), 2)
    inputs = {"first": one, "second": two, "data": data(tmp_path / "data")}
    config = EnsembleConfig(intervals=QUICK, language=language, context=32)
    metrics, figures = ran("evaluate.ensemble", config, inputs, tmp_path / "out")
    singles = {}
    for name in ("one", "two"):
        single = find("evaluate.classify")
        out = tmp_path / f"single-{name}"
        out.mkdir()
        from nacre.lifecycle.evaluate.stages import EvaluateConfig

        how = EvaluateConfig(intervals=QUICK, context=32)
        single(how, Work({"model": tmp_path / name, "data": inputs["data"]}, out, out / "s"))
        rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        order = [0, 1] if name == "one" else [1, 0]
        singles[name] = np.array([row["scores"] for row in rows])[:, order]
        told = json.loads((out / "metrics.json").read_text())["accuracy"]
        assert figures["members"][name]["accuracy"] == told
    ours = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    expected = (singles["one"] + singles["two"]) / 2
    np.testing.assert_allclose(np.array([row["scores"] for row in ours]), expected, atol=2e-6)
    assert metrics["examples"] == 9
    assert set(figures["members"]) == {"one", "two", "stacking"}
    assert figures["best_on_validation"] in ("one", "two")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ("堆叠" if language == "zh" else "Stacking") in page
    assert "http://" not in page


def test_stacking_never_sees_the_rows_it_is_measured_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on which it is measured"):
        EnsembleConfig(validation="test")
    inputs = {"first": tmp_path, "second": tmp_path, "data": data(tmp_path / "data", splits=("test",))}
    with pytest.raises(DataError, match="no split 'valid'"):
        check_ensemble(EnsembleConfig(), inputs)
    check_ensemble(EnsembleConfig(stacking=False), inputs)
    # The measured rows' labels do not reach the stacked scores.
    one, two = model(tmp_path / "one", ("en", "zh"), 1), model(tmp_path / "two", ("en", "zh"), 2)
    found = []
    for turn in range(2):
        place = data(tmp_path / f"data-{turn}")
        if turn:
            rows = [json.loads(line) for line in (place / "test.jsonl").read_text().splitlines()]
            flip = {"en": "zh", "zh": "en"}
            write_jsonl(place / "test.jsonl", [{**row, "label": flip[row["label"]]} for row in rows])
        inputs = {"first": one, "second": two, "data": place}
        config = EnsembleConfig(intervals=QUICK, context=32)
        _, figures = ran("evaluate.ensemble", config, inputs, tmp_path / f"out-{turn}")
        found.append(figures["members"]["stacking"]["accuracy"]["value"])
    assert found[0] == pytest.approx(1 - found[1])


def test_members_of_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    one, two = model(tmp_path / "one", ("en", "zh"), 1), model(tmp_path / "two", ("en", "fr"), 2)
    inputs = {"first": one, "second": two, "data": data(tmp_path / "data")}
    with pytest.raises(CheckpointError, match="only one knows 'fr'"):
        ran("evaluate.ensemble", EnsembleConfig(intervals=QUICK, context=32), inputs, tmp_path / "out")


def test_the_mean_and_the_features_of_stacking() -> None:
    one, two = np.array([[0.9, 0.1], [0.0, 1.0]]), np.array([[0.5, 0.5], [0.2, 0.8]])
    np.testing.assert_allclose(averaged([one, two]), [[0.7, 0.3], [0.1, 0.9]])
    features = log_features([one, two])
    assert features.shape == (2, 4)
    assert features[1, 0] == pytest.approx(np.log(1e-6))


# Three tasks: what was right after each stage. Means: 1.0 0.5 0.25 | 0.5 0.75 | 1.0
RIGHT = [
    np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=np.float64),
    np.array([[1, 1, 0, 0], [1, 1, 1, 0]], dtype=np.float64),
    np.array([[1, 1, 1, 1]], dtype=np.float64),
]


def test_forgetting_is_as_its_papers_define_it() -> None:
    found = summary(RIGHT, Setting("t", bootstrap=Bootstrap(resamples=200)))
    assert found["average_accuracy"].value == pytest.approx((0.25 + 0.75 + 1.0) / 3)
    assert found["backward_transfer"].value == pytest.approx(((0.25 - 1.0) + (0.75 - 0.5)) / 2)
    # The best of the stages before the last, minus the last: a task that got better was forgotten by less than 0.
    assert found["forgetting"].value == pytest.approx(((1.0 - 0.25) + (0.5 - 0.75)) / 2)
    for one in found.values():
        assert one.low <= one.value <= one.high
    best_between = [np.array([[0, 0], [1, 1], [1, 0]], dtype=np.float64), RIGHT[1], RIGHT[2]]
    again = summary(best_between, Setting("t", bootstrap=Bootstrap(resamples=200)))
    assert again["forgetting"].value == pytest.approx(((1.0 - 0.5) + (0.5 - 0.75)) / 2)
    with pytest.raises(DataError, match="one task"):
        summary(RIGHT[:1], Setting("t"))


def test_intervals_of_a_bare_loop_are_about_the_same() -> None:
    """Rows resampled within tasks by a plain loop: another bootstrap of the same quantity."""
    rng = np.random.default_rng(0)
    right = [(rng.random((stages, 150)) < 0.7).astype(np.float64) for stages in (2, 1)]
    found = summary(right, Setting("t", bootstrap=Bootstrap(resamples=2000)))["backward_transfer"]
    values = []
    for _ in range(2000):
        drawn = right[0][:, rng.integers(0, 150, 150)]
        values.append(drawn[1].mean() - drawn[0].mean())
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.025)
    assert found.high == pytest.approx(high, abs=0.025)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_matrix_has_a_blank_where_a_task_was_still_to_come(language: Any) -> None:
    learnt = Learnt(["s1", "s2", "s3"], ["a", "b", "c"], RIGHT, RIGHT)
    measured = forgetting(learnt, Setting("t", language, Bootstrap(resamples=200)))
    first, told = measured.report.tables
    assert [row[0] for row in first.rows] == ["s1", "s2", "s3"]
    assert first.rows[0][2:] == ["", ""]
    assert first.rows[2][1].startswith("25.0")
    assert told.rows == first.rows
    assert measured.figures["accuracy"]["a"]["s3"]["value"] == 0.25


def test_every_stage_is_asked_about_every_task_so_far(tmp_path: Path) -> None:
    first, second = model(tmp_path / "s1", ("en", "zh"), 1), model(tmp_path / "s2", ("en", "zh", "a", "b"), 2)
    inputs = {
        "first_model": first, "second_model": second,
        "first_data": data(tmp_path / "t1"), "second_data": data(tmp_path / "t2", ("a", "b")),
    }  # fmt: skip
    config = ForgettingConfig(intervals=QUICK, context=32)
    metrics, figures = ran("evaluate.forgetting", config, inputs, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert {(row["stage"], row["task"]) for row in rows} == {(1, 1), (2, 1), (2, 2)}
    assert all(row["told"] in ("en", "zh") for row in rows if row["task"] == 1)
    assert all(row["told"] in ("a", "b") for row in rows if row["task"] == 2)
    for stage, task, at, name in ((1, 1, "s1", "t1"), (2, 1, "s2", "t1"), (2, 2, "s2", "t2")):
        part = [row for row in rows if (row["stage"], row["task"]) == (stage, task)]
        for key, ending in (("predicted", ""), ("told", "_told")):
            share = sum(row[key] == row["label"] for row in part) / len(part)
            assert figures[f"accuracy{ending}"][name][at]["value"] == pytest.approx(share)
    assert {"average_accuracy", "forgetting_told_low"} <= set(metrics)
    own = ForgettingConfig(intervals=QUICK, context=32, answers="own")
    _, figures = ran("evaluate.forgetting", own, inputs, tmp_path / "own")
    assert figures["forgetting"]["value"] == figures["backward_transfer"]["value"] == 0


def test_a_stage_without_its_task_is_refused(tmp_path: Path) -> None:
    inputs = {"first_model": tmp_path, "second_model": tmp_path, "first_data": data(tmp_path / "t1")}
    with pytest.raises(ConfigError, match="second_data is not"):
        check_forgetting(ForgettingConfig(), inputs)
