"""Tier 0: features, the choice of C, the saved form, the stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from nacre.data.write import write_jsonl
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.recipe.stage import Work
from nacre.tiers.baseline import stages
from nacre.tiers.baseline.baseline import Examples, Grams, Linear, Search, fit, units_of

ENGLISH = [
    ("where is my parcel", "delivery"), ("the parcel is not here", "delivery"), ("track my delivery", "delivery"),
    ("i want my money back", "refund"), ("refund the payment", "refund"), ("when does the refund come", "refund"),
]  # fmt: skip
CHINESE = [
    ("我的包裹到哪里了", "delivery"), ("快递还没有送到", "delivery"), ("查一下包裹的物流", "delivery"),
    ("我要退款", "refund"), ("请把钱退给我", "refund"), ("退款什么时候到账", "refund"),
]  # fmt: skip
BOTH = ENGLISH + CHINESE


def examples(pairs: list[tuple[str, str]]) -> Examples:
    return Examples([text for text, _ in pairs], [label for _, label in pairs])


def test_units_follow_the_script() -> None:
    assert units_of([text for text, _ in ENGLISH]) == "both"
    assert units_of([text for text, _ in CHINESE]) == "characters"
    assert units_of([text for text, _ in BOTH]) == "both"


@pytest.mark.parametrize("solver", ["svm", "logistic"])
def test_features_equal_scikit_learns_tf_idf(solver: Any) -> None:
    texts = [text for text, _ in BOTH]
    model = fit(examples(BOTH), Examples([], []), Search(Grams("words", word_n=2), solver)).model
    oracle = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True).fit(texts)
    names = [gram.removeprefix("w:") for gram in model.space.vocabulary]
    assert names == sorted(oracle.vocabulary_)
    columns = [oracle.vocabulary_[name] for name in names]
    new = [*texts, "refund refund refund my parcel unheard", ""]
    np.testing.assert_allclose(
        model.space.features(new).toarray(), oracle.transform(new).toarray()[:, columns], atol=1e-12
    )


@pytest.mark.parametrize("solver", ["svm", "logistic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_reloaded_model_answers_the_same(solver: Any, classes: int, tmp_path: Path) -> None:
    rows = BOTH + ([("请开发票", "invoice"), ("send an invoice", "invoice")] if classes == 3 else [])
    model = fit(examples(rows), Examples([], []), Search(Grams("both"), solver)).model
    model.save(tmp_path)
    texts = [text for text, _ in rows] + ["没见过的话", ""]
    again = Linear.load(tmp_path)
    assert (again.scores(texts) == model.scores(texts)).all()
    assert again.predict(texts) == model.predict(texts)
    assert again.predict(texts[:12]) == [label for _, label in rows[:12]]
    if solver == "logistic":
        np.testing.assert_allclose(model.scores(texts).sum(axis=1), 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["baseline.json", "weights.npz"]


def test_validation_chooses_c_and_the_order_of_rows_does_not_matter() -> None:
    search = Search(Grams("both"), candidates=(0.001, 1.0))
    chosen = fit(examples(BOTH), examples(BOTH), search)
    turned = fit(examples(BOTH[::-1]), examples(BOTH), search)
    assert set(chosen.validation) == {0.001, 1.0}
    assert chosen.validation[chosen.model.c] == max(chosen.validation.values())
    assert chosen.model.space.vocabulary == turned.model.space.vocabulary
    np.testing.assert_allclose(chosen.model.weights, turned.model.weights, atol=2e-3)


def test_refit_uses_the_validation_rows() -> None:
    search = Search(Grams("both"), candidates=(1.0,), refit=True)
    model = fit(examples(ENGLISH), examples(CHINESE), search).model
    assert any("退款" in gram for gram in model.space.vocabulary)


def test_one_class_and_empty_texts_are_errors() -> None:
    with pytest.raises(DataError, match="'refund'"):
        fit(examples([("a b", "refund"), ("c d", "refund")]), Examples([], []), Search(Grams("both")))
    with pytest.raises(DataError, match="hold no word"):
        fit(examples([("...", "a"), ("!", "b")]), Examples([], []), Search(Grams("both")))


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no baseline"):
        Linear.load(tmp_path)
    fit(examples(BOTH), Examples([], []), Search(Grams("words"))).model.save(tmp_path)
    plain = json.loads((tmp_path / "baseline.json").read_text(encoding="utf-8"))
    plain["vocabulary"] = plain["vocabulary"][1:]
    (tmp_path / "baseline.json").write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(CheckpointError, match="different runs"):
        Linear.load(tmp_path)


def data(folder: Path, **splits: list[tuple[str, str]]) -> Path:
    for name, rows in splits.items():
        write_jsonl(folder / f"{name}.jsonl", [{"text": text, "label": label} for text, label in rows])
    return folder


def test_the_stage_writes_predictions_and_repeats_itself(tmp_path: Path) -> None:
    source = data(tmp_path / "data", train=BOTH, valid=BOTH, test=[*BOTH, ("新的问题", "unheard")])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        found = stages.classify(stages.BaselineConfig(), Work({"data": source}, tmp_path / name, tmp_path))
    assert found["unseen_labels"] == 1
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    rows = [json.loads(line) for line in (tmp_path / "a" / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 13
    assert set(rows[0]) == {"id", "text", "label", "predicted", "scores", "system"}
    for file in ("predictions.jsonl", "metrics.json", "baseline.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_missing_splits_and_settings_are_told_first(tmp_path: Path) -> None:
    check = stages.classify.check
    assert check is not None
    with pytest.raises(DataError, match="holds no test"):
        check(stages.BaselineConfig(), {"data": data(tmp_path, train=BOTH)})
    with pytest.raises(ConfigError):
        stages.BaselineConfig(candidates=())
