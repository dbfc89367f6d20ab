"""The comparison of tiers: exact tests, paired intervals, seeds, prefixes that the budget left."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ladder_results import answers_of, rows_of, rows_to_judge

from nacre.errors import DataError
from nacre.ladder.compare import compare, mcnemar
from nacre.ladder.result import Row
from nacre.metrics.bootstrap import Bootstrap
from nacre.metrics.quality import Quality

ACCURACY = Quality("classify", "accuracy")
QUICK = Bootstrap(resamples=400)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 30)
    second = np.array([False] * 10 + [True] * 2 + [True] * 30)
    # 2 * P(X <= 2), X ~ Binomial(12, 1/2) = 2 * (1 + 12 + 66) / 4096
    assert mcnemar(first, second) == pytest.approx(158 / 4096)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar(first, first) == 1.0
    assert mcnemar(np.ones(5000, bool), np.zeros(5000, bool)) == 0.0  # too small for a float, and no overflow


def test_every_row_is_scored_and_put_beside_the_best() -> None:
    tests = rows_to_judge()
    answers = answers_of(tests)
    rows = {row.name: row for row in compare(rows_of(), ACCURACY, tests, answers, QUICK)}
    best = max(rows.values(), key=lambda row: row.score or 0)
    assert best.name == "tune"
    assert best.vs_best is None
    for name, values in answers.items():
        hits = [np.mean([v == row["label"] for v, row in zip(seed, tests, strict=True)]) for seed in values]
        assert rows[name].score == pytest.approx(np.mean(hits))
        assert rows[name].seeds == pytest.approx(hits)
        assert rows[name].ci_low < rows[name].score < rows[name].ci_high
        if name != "tune":
            gap = rows[name].vs_best
            assert gap.best == "tune"
            assert gap.difference == pytest.approx(rows[name].score - best.score)
            assert gap.low < gap.difference < gap.high
            assert gap.p <= gap.p_holm <= 1


def test_a_single_run_of_shares_is_tested_exactly_and_repeated_runs_by_resampling() -> None:
    tests = rows_to_judge()
    answers = answers_of(tests)
    rows = {row.name: row for row in compare(rows_of(), ACCURACY, tests, answers, QUICK)}
    assert rows["relay"].vs_best.test == "bootstrap"  # the best was repeated
    answers["tune"] = answers["tune"][:1]
    rows = {row.name: row for row in compare(rows_of(), ACCURACY, tests, answers, QUICK)}
    assert rows["relay"].vs_best.test == "mcnemar"


def test_seeds_that_differ_widen_the_interval() -> None:
    tests = rows_to_judge(300)
    rng = random.Random(1)
    labels = sorted({row["label"] for row in tests})

    def run(share: float) -> list[str]:
        return [row["label"] if rng.random() < share else rng.choice(labels) for row in tests]

    steady = run(0.85)
    bench = [Row(4, "tune")]

    def width(seeds: list[list[str]]) -> float:
        (row,) = compare(bench, ACCURACY, tests, {"tune": seeds}, QUICK)
        return row.ci_high - row.ci_low

    once, thrice = width([steady]), width([steady, steady, steady])
    apart = width([run(0.95), run(0.85), run(0.70)])
    assert thrice == pytest.approx(once, rel=0.25)  # the same run again tells nothing new
    assert apart > 2 * once


def test_the_variance_of_seeds_is_not_understated_when_they_are_few() -> None:
    # Two seeds at 1 and 0 on every row: all the variance is that of seeds, whose unbiased standard error is 0.5.
    from nacre.ladder.compare import _mean_of_seeds

    values = np.stack([np.ones(20_000), np.zeros(20_000)])
    means = _mean_of_seeds(values, np.random.default_rng(0))
    assert means.std() == pytest.approx(0.5, rel=0.02)


def test_rows_left_by_the_budget_are_compared_on_the_rows_both_answered() -> None:
    tests = rows_to_judge()
    answers = answers_of(tests)
    answers["retrieval"] = [answers["retrieval"][0][:250]]
    rows = {row.name: row for row in compare(rows_of(), ACCURACY, tests, answers, QUICK)}
    row = rows["retrieval"]
    assert (row.examples, row.unmeasured, row.vs_best.examples) == (250, 150, 250)
    part = [np.mean([v == t["label"] for v, t in zip(seed, tests[:250], strict=False)]) for seed in answers["tune"]]
    assert row.vs_best.difference == pytest.approx(row.score - np.mean(part))
    assert rows["relay"].vs_best.examples == 400


def test_a_tier_that_barely_began_is_not_the_best() -> None:
    tests = rows_to_judge()
    answers = answers_of(tests)
    answers["relay"] = [[row["label"] for row in tests[:12]]]  # all right, on twelve rows
    rows = {row.name: row for row in compare(rows_of(), ACCURACY, tests, answers, QUICK)}
    assert rows["relay"].score == 1.0
    assert rows["relay"].vs_best.best == "tune"


def test_rows_without_answers_are_left_as_they_are() -> None:
    tests = rows_to_judge()
    failed = Row(2, "prompt", status="failed", reason="gone")
    rows = compare([failed, Row(0, "baseline"), Row(1, "relay")], ACCURACY, tests, answers_of(tests) | {"relay": [[]]})
    assert rows[0] is failed
    assert rows[1].ok
    assert rows[1].vs_best is None
    assert not rows[2].ok


def test_no_answer_is_wrong_and_not_left_out() -> None:
    tests = rows_to_judge(100)
    values = [row["label"] for row in tests[:50]] + [None] * 50
    (row,) = compare([Row(1, "relay")], ACCURACY, tests, {"relay": [values]})
    assert (row.score, row.examples) == (0.5, 100)


def test_more_answers_than_test_rows_are_refused() -> None:
    tests = rows_to_judge(20)
    with pytest.raises(DataError, match="more answers than the 20 test rows"):
        compare([Row(0, "baseline")], ACCURACY, tests, {"baseline": [["refund"] * 21]})


def test_the_same_answers_give_the_same_comparison() -> None:
    tests = rows_to_judge()
    answers = answers_of(tests)
    once, again = (compare(rows_of(), ACCURACY, tests, answers, QUICK) for _ in range(2))
    assert once == again
    backwards = compare(rows_of()[::-1], ACCURACY, tests, answers, QUICK)
    assert {row.name: row.score for row in once} == {row.name: row.score for row in backwards}


@pytest.mark.parametrize(
    ("kind", "metric", "test", "right", "wrong"),
    [
        ("classify", "macro_f1", {"text": "a", "label": "x"}, "x", "y"),
        ("tag", "entity_f1", {"tokens": ["a", "b"], "tags": ["B-P", "O"]}, ["B-P", "O"], ["O", "B-P"]),
        ("generate", "exact", {"source": "a", "target": "b"}, "b", "c"),
        ("generate", "chrf", {"source": "a", "target": "one two"}, "one two", "something else"),
        ("rank", "ndcg@10", {"query": "a", "relevant": ["1"]}, ["1", "2"], ["2", "1"]),
    ],
)
def test_every_kind_of_task_is_compared(kind: str, metric: str, test: dict, right: object, wrong: object) -> None:
    tests = [test] * 40
    answers = {"baseline": [[wrong] * 20 + [right] * 20], "tune": [[right] * 36 + [wrong] * 4]}
    thin, thick = compare([Row(0, "baseline"), Row(4, "tune")], Quality(kind, metric), tests, answers, QUICK)
    assert thin.vs_best.best == "tune"
    assert thin.vs_best.high < 0
    assert thick.vs_best is None
