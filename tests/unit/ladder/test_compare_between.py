"""Between two tiers: what the thicker one mends and spoils, for every kind of task."""

from __future__ import annotations

from typing import Any

import pytest
from ladder_results import answers_of, rows_of, rows_to_judge

from nacre.ladder.between import MOST_EXAMPLES, MOST_TEXT, between
from nacre.ladder.compare import compare
from nacre.ladder.result import Between, Row
from nacre.metrics.quality import Quality


def pair(kind: str, metric: str, tests: list[dict[str, Any]], thin: list[Any], thick: list[Any]) -> Between:
    rows = [Row(0, "baseline", score=0.5), Row(4, "tune", score=0.5)]
    (found,) = between(rows, Quality(kind, metric), tests, {"baseline": [thin], "tune": [thick]})
    return found


def test_counts_add_up_and_every_pair_is_there() -> None:
    tests = rows_to_judge()
    answers = answers_of(tests)
    rows = compare(rows_of(), Quality("classify", "accuracy"), tests, answers)
    found = between(rows, Quality("classify", "accuracy"), tests, answers)
    assert len(found) == 15
    for one in found:
        thin, thick = (
            sum(v == row["label"] for v, row in zip(answers[name][0], tests, strict=True))
            for name in (one.thinner, one.thicker)
        )
        assert one.fixed - one.broken == thick - thin
        assert len(one.fixes) == min(one.fixed, MOST_EXAMPLES)
        assert all(example.thicker == example.truth != example.thinner for example in one.fixes)
        assert all(example.thinner == example.truth != example.thicker for example in one.breaks)


def test_only_rows_that_both_answered_count() -> None:
    tests = [{"text": str(i), "label": "a"} for i in range(10)]
    found = pair("classify", "macro_f1", tests, ["b"] * 10, ["a"] * 4)
    assert (found.examples, found.fixed, found.broken, found.same) == (4, 4, 0, 0.0)


def test_no_answer_is_shown_as_such() -> None:
    found = pair("classify", "accuracy", [{"text": "t", "label": "a"}], [None], ["a"])
    assert found.fixes[0].thinner == "(no answer)"


def test_entities_are_shown_as_text() -> None:
    tests = [{"tokens": ["王", "芳", "去", "上", "海"], "tags": ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]}]
    found = pair("tag", "entity_f1", tests, [["O", "O", "O", "B-LOC", "I-LOC"]], [tests[0]["tags"]])
    assert (found.fixed, found.broken) == (1, 0)
    assert found.fixes[0].text == "王芳去上海"
    assert found.fixes[0].truth == "王芳 PER · 上海 LOC"
    assert found.fixes[0].thinner == "上海 LOC"


def test_a_sentence_without_entities_can_be_spoilt() -> None:
    found = pair("tag", "entity_f1", [{"tokens": ["a"], "tags": ["O"]}], [["O"]], [["B-PER"]])
    assert (found.fixed, found.broken) == (0, 1)
    assert found.breaks[0].truth == "(no entity)"


def test_texts_and_rankings_count_where_they_differ_clearly() -> None:
    tests = [{"source": "s", "target": "the cat sat on the mat"}] * 2
    found = pair("generate", "chrf", tests, ["dogs", "the cat sat on the mat"], ["the cat sat on the mat"] * 2)
    assert (found.fixed, found.broken, found.same) == (1, 0, 0.5)
    ranks = [{"query": "q", "relevant": ["1"]}]
    found = pair("rank", "ndcg@10", ranks, [["9", "8", "7", "6", "5", "4"]], [["1", "9"]])
    assert found.fixes[0].thinner == "9 · 8 · 7 · 6 · 5 +1"


def test_long_texts_are_cut_visibly() -> None:
    found = pair("classify", "accuracy", [{"text": "长" * 5000, "label": "a"}], ["b"], ["a"])
    assert len(found.fixes[0].text) == MOST_TEXT
    assert found.fixes[0].text.endswith("…")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_words_follow_the_language(language: str) -> None:
    rows = [Row(0, "baseline", score=0.5), Row(4, "tune", score=0.5)]
    tests = [{"text": "t", "label": "a"}]
    (found,) = between(rows, Quality("classify", "accuracy"), tests, {"baseline": [[None]], "tune": [["a"]]}, language)
    assert found.fixes[0].thinner == {"en": "(no answer)", "zh": "（无应答）"}[language]
