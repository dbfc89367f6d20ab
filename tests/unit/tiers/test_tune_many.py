"""Averages of models and cross-validation: laws, what is refused, what a kill costs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from objective_kit import CHINESE, ENGLISH, kernel, tokenizer

from nacre.data.tokenizer import Tokenizer
from nacre.data.write import write_json, write_jsonl
from nacre.errors import CheckpointError, ConfigError, DataError, TrainingError
from nacre.kernel import hf
from nacre.recipe.catalogue import find
from nacre.recipe.stage import Work
from nacre.tiers.fitting import rows_of
from nacre.tiers.tune import folding_worker
from nacre.tiers.tune.averaging import AverageConfig
from nacre.tiers.tune.averaging_worker import blended
from nacre.tiers.tune.folding import CrossvalidateConfig
from nacre.tiers.tune.folding_worker import over_folds, probabilities, stratified
from nacre.tiers.tune.stages import TuneClassifyConfig
from nacre.train.config import TrainConfig
from nacre.train.evaluation import Setting, evaluate
from nacre.train.objective import prepare
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig

ROWS = [{"text": one, "label": name} for texts, name in ((ENGLISH, "en"), (CHINESE, "zh")) for one in texts]


def model(folder: Path, seed: int = 0, labels: tuple[str, ...] = ("en", "zh"), **changes: Any) -> Path:
    torch.manual_seed(seed)  # the head draws from here, whatever test came before
    made = kernel("bert", "none", **changes).with_head("classify", labels=labels, pooling="mean")
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in made.parameters():
            one.add_(0.1 * torch.randn(one.shape, generator=draws))
    hf.save(made, folder)
    tokenizer("bert").save(folder)
    return folder


def data(folder: Path, splits: tuple[str, ...] = ("train", "valid")) -> Path:
    for split in splits:
        write_jsonl(folder / f"{split}.jsonl", ROWS)
    write_json(folder / "labels.json", ["en", "zh"])
    return folder


def ran(stage: str, config: Any, inputs: dict[str, Path], place: Path) -> tuple[Path, dict[str, Any]]:
    found, out = find(stage), place / "out"
    if found.check is not None:
        found.check(config, inputs)
    for path in sorted(out.glob("*")) if out.is_dir() else ():
        path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (place / "scratch").mkdir(exist_ok=True)
    return out, dict(found(config, Work(inputs, out, place / "scratch", seed=3)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in hf.load(folder).state_dict().items()}


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_average_of_a_model_with_itself_is_itself_bit_for_bit(tmp_path: Path, n: int) -> None:
    one = model(tmp_path / "one")
    names = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")[:n]
    out, metrics = ran("tune.average", AverageConfig(), dict.fromkeys(names, one), tmp_path / "run")
    for name, value in weights(one).items():
        assert torch.equal(weights(out)[name], value), name
    assert metrics["models"] == n
    assert (out / "tokenizer.json").read_bytes() == (one / "tokenizer.json").read_bytes()
    assert Tokenizer.load(out) is not None


def test_given_weights_are_those_of_the_mean(tmp_path: Path) -> None:
    inputs = {"first": model(tmp_path / "a", 1), "second": model(tmp_path / "b", 2)}
    config = AverageConfig(how="weighted", weights=(3.0, 1.0))
    out, _ = ran("tune.average", config, inputs, tmp_path / "run")
    first, second = weights(inputs["first"]), weights(inputs["second"])
    for name, value in weights(out).items():
        torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name])
    assert json.loads((out / "average.json").read_text())["weights"] == {"first": 0.75, "second": 0.25}


def test_buffers_of_whole_numbers_have_no_mean() -> None:
    one, other = {"step": torch.tensor(3)}, {"step": torch.tensor(4)}
    assert blended([one, one], [0.5, 0.5])["step"] == 3
    with pytest.raises(CheckpointError, match="buffer step differs"):
        blended([one, other], [0.5, 0.5])


@pytest.mark.parametrize(("metric", "mode"), [("accuracy", "max"), ("loss", "min")])
def test_a_greedy_average_is_never_worse_on_validation_than_the_best_single_model(
    tmp_path: Path, metric: str, mode: Any
) -> None:
    inputs = {name: model(tmp_path / name, seed) for seed, name in enumerate(("first", "second", "third", "fourth"))}
    rows = data(tmp_path / "data")
    objective = Classify(tokenizer("bert"), ("en", "zh"), ClassifyConfig(context=64))
    examples = prepare(objective, ROWS, training=False)

    def score(folder: Path) -> float:
        return evaluate(hf.load(folder), objective, examples, Setting(torch.device("cpu")))[metric]

    config = AverageConfig(how="greedy", metric=metric, mode=mode, context=64)
    out, metrics = ran("tune.average", config, inputs | {"data": rows}, tmp_path / "run")
    singles = [score(folder) for folder in inputs.values()]
    assert len(set(singles)) > 1
    best = max(singles) if mode == "max" else min(singles)
    assert (score(out) >= best) if mode == "max" else (score(out) <= best + 1e-7)
    assert metrics[f"valid_{metric}"] == pytest.approx(score(out), abs=1e-5)
    assert metrics["best_single"] == pytest.approx(best, abs=1e-5)


def test_what_differs_is_named(tmp_path: Path) -> None:
    one = model(tmp_path / "one")
    for name, other, told in (
        ("labels", model(tmp_path / "labels", labels=("en", "fr")), "labels is"),
        ("width", model(tmp_path / "width", ffn_size=96), "ffn_size is 64 and 96"),
        ("depth", model(tmp_path / "depth", layers=1), "layers is 2 and 1"),
    ):
        with pytest.raises(CheckpointError, match=told):
            ran("tune.average", AverageConfig(), {"first": one, "second": other}, tmp_path / f"run-{name}")
    words = model(tmp_path / "words")
    file = words / "tokenizer.json"
    file.write_text(file.read_text().replace("[UNK]", "[unk]"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="different tokenizers"):
        ran("tune.average", AverageConfig(), {"first": one, "second": words}, tmp_path / "run-words")
    dropout = model(tmp_path / "dropout", dropout=0.3)
    ran("tune.average", AverageConfig(), {"first": one, "second": dropout}, tmp_path / "run-dropout")


def test_what_cannot_be_averaged_is_told_before_the_work(tmp_path: Path) -> None:
    check = find("tune.average").check
    assert check is not None
    both = {"first": tmp_path, "second": tmp_path}
    with pytest.raises(ConfigError, match="3 weights for 2 models"):
        check(AverageConfig(how="weighted", weights=(1, 1, 1)), both)
    with pytest.raises(DataError, match="validation rows"):
        check(AverageConfig(how="greedy"), both)
    with pytest.raises(DataError, match=r"no valid\.jsonl"):
        check(AverageConfig(how="greedy"), both | {"data": data(tmp_path / "data", ("train",))})
    with pytest.raises(ConfigError, match="go together"):
        AverageConfig(weights=(1.0,))
    with pytest.raises(ConfigError, match="above 0"):
        AverageConfig(how="weighted", weights=(0.0, 0.0))


# ---- cross-validation


def quick(**changes: Any) -> CrossvalidateConfig:
    train = TrainConfig(max_steps=4, batch_size=4, lr=1e-3, eval_every=2, checkpoint_every=1)
    return CrossvalidateConfig(
        folds=3, tune=TuneClassifyConfig(objective=ClassifyConfig(context=32), train=train), **changes
    )


def test_folds_are_stratified_and_a_text_is_in_one_of_them() -> None:
    texts = [f"text {number // 2}" for number in range(80)]  # each twice
    labels = ["rare" if number // 2 % 4 == 0 else "often" for number in range(80)]
    folds = stratified(texts, labels, 5, seed=1)
    for label, expected in (("rare", 4), ("often", 12)):
        counted = Counter(fold for fold, one in zip(folds.tolist(), labels, strict=True) if one == label)
        assert set(counted.values()) == {expected}
    assert all(folds[number] == folds[number + 1] for number in range(0, 80, 2))
    assert (folds == stratified(texts, labels, 5, seed=1)).all()
    assert (folds != stratified(texts, labels, 5, seed=2)).any()


def test_every_row_is_predicted_by_a_model_that_was_not_trained_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    inner = folding_worker.fit

    def noted(kernel: Any, objective: Any, rows: Any, how: Any, work: Any) -> Any:
        seen.append({row["text"] for row in rows.train})
        assert len(rows.valid) == len(ROWS)  # the data's own, never the fold
        return inner(kernel, objective, rows, how, work)

    monkeypatch.setattr(folding_worker, "fit", noted)
    inputs = {"model": model(tmp_path / "base"), "data": data(tmp_path / "data")}
    out, metrics = ran("tune.crossvalidate", quick(), inputs, tmp_path / "run")
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    for row in rows:
        assert row["text"] not in seen[row["fold"] - 1]
        assert row["predicted"] == ["en", "zh"][int(np.argmax(row["scores"]))]
    figures = json.loads((out / "metrics.json").read_text())
    per_fold = [one["accuracy"] for one in figures["folds"]]
    assert metrics["accuracy"] == pytest.approx(np.mean(per_fold), abs=1e-6)
    for fold, value in enumerate(per_fold, 1):
        part = [row for row in rows if row["fold"] == fold]
        assert value == pytest.approx(np.mean([row["label"] == row["predicted"] for row in part]))
    assert "Bengio & Grandvalet 2004" in figures["note"]
    assert sorted(path.name for path in (tmp_path / "run" / "scratch").iterdir()) == [
        f"fold-{n}.json" for n in range(3)
    ]


def test_the_interval_over_folds_is_students() -> None:
    from scipy import stats

    values = [0.8, 0.9, 0.85, 0.7, 0.95]
    found = over_folds(values, 0.95)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_trap_44_killed_in_the_second_fold_the_same_bytes_and_the_first_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"model": model(tmp_path / "base"), "data": data(tmp_path / "data")}
    whole, _ = ran("tune.crossvalidate", quick(), inputs, tmp_path / "whole")
    done = tmp_path / "killed" / "scratch" / "fold-0.json"

    def killed(self: Classify, step: int) -> None:
        if done.is_file() and step == 3:
            raise TrainingError("killed", remedy="again")

    with monkeypatch.context() as patched:
        patched.setattr(Classify, "watch", killed)
        with pytest.raises(TrainingError, match="killed"):
            ran("tune.crossvalidate", quick(), inputs, tmp_path / "killed")
    assert done.is_file()
    trained: list[int] = []
    inner = folding_worker.fit
    monkeypatch.setattr(folding_worker, "fit", lambda *given: (trained.append(1), inner(*given))[1])
    again, _ = ran("tune.crossvalidate", quick(), inputs, tmp_path / "killed")
    assert len(trained) == 2
    for file in sorted(path.name for path in whole.iterdir()):
        assert (whole / file).read_bytes() == (again / file).read_bytes(), file


def test_more_folds_than_rows_are_refused(tmp_path: Path) -> None:
    inputs = {"model": model(tmp_path / "base"), "data": data(tmp_path / "data")}
    with pytest.raises(DataError, match="lower folds"):
        ran("tune.crossvalidate", CrossvalidateConfig(folds=20), inputs, tmp_path / "run")
    with pytest.raises(ConfigError, match="folds is 1"):
        CrossvalidateConfig(folds=1)


def test_probabilities_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    found = hf.load(model(tmp_path / "m"))
    objective = Classify(tokenizer("bert"), ("en", "zh"), ClassifyConfig(context=64))
    together = probabilities(found, objective, rows_of(data(tmp_path / "data")).train, 4)
    alone = [probabilities(found, objective, [row], 1)[0] for row in ROWS]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)
