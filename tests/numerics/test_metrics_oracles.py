"""Own metrics against scikit-learn and sacrebleu, and the coverage of the intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sklearn import metrics as oracle

from nacre.metrics import classification as metrics
from nacre.metrics.bootstrap import Bootstrap, interval
from nacre.metrics.overlap import bleu, chrf

TOLERANCE = 1e-12


def draw(seed: int, n: int = 400, classes: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    true = rng.integers(0, classes - 1, n)  # the last class never occurs as a label
    logits[np.arange(n), true] += 1.0
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return true, scores.argmax(axis=1), scores


@pytest.mark.parametrize("seed", range(5))
def test_classification_scores_equal_scikit_learn(seed: int) -> None:
    true, predicted, _ = draw(seed)
    matrix = metrics.confusion_matrix(true, predicted, 7)
    assert (matrix == oracle.confusion_matrix(true, predicted, labels=range(7))).all()
    found, per_class = metrics.averages(matrix), metrics.class_scores(matrix)
    expected = oracle.precision_recall_fscore_support(true, predicted, labels=range(7), zero_division=0)
    for mine, theirs in zip(
        (per_class.precision, per_class.recall, per_class.f1, per_class.support), expected, strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=TOLERANCE)
    for average in ("micro", "macro", "weighted"):
        values = oracle.precision_recall_fscore_support(true, predicted, average=average, zero_division=0)[:3]
        for name, value in zip(("precision", "recall", "f1"), values, strict=True):
            assert found[f"{average}_{name}"] == pytest.approx(value, abs=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_figures_from_summed_rows_equal_the_direct_ones(seed: int) -> None:
    true, predicted, _ = draw(seed)
    sums = metrics.class_rows(true, predicted, 7).sum(axis=0)[None, :]
    assert metrics.accuracy_of_sums(sums)[0] == pytest.approx(oracle.accuracy_score(true, predicted), abs=TOLERANCE)
    expected = oracle.f1_score(true, predicted, average="macro")
    assert metrics.macro_f1_of_sums(sums)[0] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_one_vs_rest_equals_scikit_learn(seed: int) -> None:
    true, _, scores = draw(seed)
    scores = scores[:, :6] / scores[:, :6].sum(axis=1, keepdims=True)
    found = metrics.one_vs_rest(true, scores)
    assert found.macro == pytest.approx(oracle.roc_auc_score(true, scores, multi_class="ovr"), abs=TOLERANCE)
    micro = oracle.roc_auc_score(true, scores, multi_class="ovr", average="micro")
    assert found.micro.auc == pytest.approx(micro, abs=TOLERANCE)


ENGLISH = (
    ["the cat sat on the mat", "a quick answer helps", "nobody came to the meeting", "ship it today"],
    ["the cat sat on a mat", "a quick reply helps everyone", "no one came to the meeting", "ship it now"],
)
CHINESE = (
    ["今天的天气很好", "请把发票寄给我", "会议没有人来", "订单已经发货了"],
    ["今天天气很好啊", "请把发票寄到公司", "没有人来参加会议", "订单今天发货"],
)


@pytest.mark.parametrize(("texts", "language"), [(ENGLISH, "en"), (CHINESE, "zh")])
def test_corpus_scores_of_summed_rows_equal_sacrebleu(texts: tuple[list[str], list[str]], language: str) -> None:
    hypotheses, references = texts
    for found, theirs in (
        (bleu(hypotheses, references, language), BLEU(tokenize="zh" if language == "zh" else "13a")),
        (chrf(hypotheses, references, language), CHRF()),
    ):
        expected = theirs.corpus_score(hypotheses, [references]).score
        assert found.score == pytest.approx(expected, abs=1e-9)
        assert found.of_sums(found.rows.sum(axis=0)[None, :])[0] == pytest.approx(expected, abs=1e-9)
        subset = [0, 0, 2, 3]
        again = theirs.corpus_score([hypotheses[i] for i in subset], [[references[i] for i in subset]]).score
        assert found.of_sums(found.rows[subset].sum(axis=0)[None, :])[0] == pytest.approx(again, abs=1e-9)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(method: str) -> None:
    """300 data sets of 80 examples with true accuracy .85: 95 % intervals hold it in 90..99 % of them."""
    rng = np.random.default_rng(7)
    held = 0
    for trial in range(300):
        hits = (rng.random(80) < 0.85).astype(np.float64)
        table = np.column_stack([hits, np.ones(80)])
        found = interval(
            table, lambda sums: sums[:, 0] / sums[:, 1], Bootstrap(resamples=400, method=method, seed=trial)
        )  # type: ignore[arg-type]
        held += found.low <= 0.85 <= found.high
    assert 0.90 <= held / 300 <= 0.99


def test_bca_corrects_skew_where_percentile_does_not() -> None:
    """The mean of a log-normal sample (n = 25): BCa's upper end reaches further, as the skew demands."""
    rng = np.random.default_rng(3)
    higher = 0
    for trial in range(40):
        values = rng.lognormal(sigma=1.0, size=25)
        table = np.column_stack([values, np.ones(25)])
        ends = [
            interval(table, lambda s: s[:, 0] / s[:, 1], Bootstrap(resamples=500, method=m, seed=trial)).high
            for m in ("bca", "percentile")
        ]
        higher += ends[0] > ends[1]
    assert higher >= 36
