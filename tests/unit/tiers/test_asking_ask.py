"""Asking: order, batches, one engine's words for another's, rows that an upstream refuses, label scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from asking_stub import ONE, WrittenEngine, blamed, classify_task, flat, generate_task, rank_task, tag_task

from nacre.engine.protocol import BudgetReached, EngineError, Sampling, Unsupported, Usage
from nacre.errors import DataError
from nacre.tiers.asking.asking import ask, count_problems, default_sampling, likeliest, score_labels, total_usage
from nacre.tiers.asking.wording import Instruction

ROWS = [{"text": f"row {number}"} for number in range(7)]


def number_of(prompt: str) -> int:
    return int(prompt.rpartition("row ")[2].split()[0])


def test_answers_come_in_the_order_of_the_rows_whatever_the_batch() -> None:
    labels = ("refund", "card", "card_arrival")
    for batch in (1, 3, 64):
        engine = WrittenEngine(reply=lambda text: labels[number_of(text) % 3])
        answers = ask(engine, classify_task(), ROWS, batch=batch)
        assert [one.value for one in answers] == [labels[number % 3] for number in range(7)]
        assert max(engine.sizes) <= batch
    assert {(one.served_by, one.usage, one.raw == one.value) for one in answers} == {("written-1", ONE, True)}
    assert total_usage(one.usage for one in answers) == Usage(70, 14, 7, "upstream")


def test_each_row_can_have_its_own_instruction() -> None:
    engine = WrittenEngine(reply=lambda text: "refund")
    ask(engine, classify_task(), ROWS[:2], [Instruction("First."), Instruction("Second.")])
    assert [flat(one)[:6] for one in engine.prompts] == ["First.", "Second"]
    with pytest.raises(ValueError, match="shorter"):
        ask(engine, classify_task(), ROWS[:2], [Instruction("First.")])


def test_an_engine_that_only_completes_is_given_one_text_and_stopped_at_a_line() -> None:
    engine = WrittenEngine(can=("complete",), reply=lambda text: " refund")
    assert ask(engine, classify_task(), ROWS[:1])[0].value == "refund"
    assert isinstance(engine.prompts[0], str)
    assert engine.samplings[0].stop == ("\n",)


def test_an_engine_that_only_embeds_is_told_so() -> None:
    with pytest.raises(Unsupported, match="cannot chat"):
        ask(WrittenEngine(can=("embed",)), classify_task(), ROWS)


def test_a_long_answer_never_takes_more_than_half_of_the_context() -> None:
    assert default_sampling(WrittenEngine(context=100), tag_task()).max_tokens == 50
    assert default_sampling(WrittenEngine(), classify_task()) == Sampling(max_tokens=44)
    assert default_sampling(WrittenEngine(), generate_task(), 7).max_tokens == 7


def test_problems_are_counted_and_the_raw_text_kept() -> None:
    replies = ["refund", ("ref", "length"), ("", "filtered"), ("no", "refused"), "what?", "Sorry, I cannot.", "card"]
    answers = ask(WrittenEngine(reply=lambda text: replies[number_of(text)]), classify_task(), ROWS)
    assert count_problems(answers) == {"cut": 1, "filtered": 1, "refused": 2, "unparsable": 1}
    assert answers[4].raw == "what?"
    assert answers[4].value is None


def test_one_row_that_the_upstream_refuses_does_not_cost_the_others() -> None:
    def reply(text: str) -> object:
        return blamed(413) if number_of(text) == 2 else "refund"

    answers = ask(WrittenEngine(reply=reply), classify_task(), ROWS, batch=4)
    assert [one.problem for one in answers] == [None, None, "rejected", None, None, None, None]
    assert answers[2].raw == "this request is not accepted"
    last_alone = ask(WrittenEngine(reply=reply), classify_task(), [*ROWS[3:], ROWS[2]], batch=4)
    assert [one.problem for one in last_alone][-1] == "rejected"


def test_an_upstream_that_refuses_every_request_is_an_error_not_a_list_of_refused_rows() -> None:
    for batch, sizes in ((1, [1]), (3, [3, 1, 1, 1])):
        engine = WrittenEngine(reply=lambda text: blamed())
        with pytest.raises(EngineError, match="not accepted"):
            ask(engine, classify_task(), ROWS, batch=batch)
        assert engine.sizes == sizes


@pytest.mark.parametrize("error", [blamed(500), blamed(401), BudgetReached("used up", remedy="raise it")])
def test_other_errors_and_the_end_of_the_budget_pass_through(error: Exception) -> None:
    engine = WrittenEngine(reply=lambda text: error if number_of(text) == 5 else "refund")
    with pytest.raises(type(error)):
        ask(engine, classify_task(), ROWS, batch=2)


def test_a_ranking_in_words_needs_passages() -> None:
    engine = WrittenEngine(reply=lambda text: "[2, 1]")
    passages = [{"id": "a", "text": "first"}, {"id": "b", "text": "second"}]
    assert ask(engine, rank_task(), [{"query": "x"}], candidates=[passages])[0].value == ["b", "a"]
    with pytest.raises(DataError, match="passages"):
        ask(engine, rank_task(), [{"query": "x"}])


def test_no_rows_are_no_calls() -> None:
    engine = WrittenEngine(can=("chat", "score"))
    assert ask(engine, classify_task(), []) == score_labels(engine, classify_task(), []) == []
    assert engine.sizes == []


def test_the_likeliest_label_wins_and_the_scores_are_probabilities() -> None:
    weights = {"refund": -1.0, "card": -2.0, "card_arrival": -3.0}
    engine = WrittenEngine(can=("chat", "score"), weigh=lambda prompt, text: weights[text.strip()])
    answers = score_labels(engine, classify_task(), ROWS, batch=8)
    assert {one.value for one in answers} == {"refund"}
    assert len(answers) == len(ROWS)
    assert engine.sizes == [6, 6, 6, 3]  # whole rows of three labels, within eight pairs
    assert sum(answers[0].scores.values()) == pytest.approx(1)
    assert list(answers[0].scores) == ["refund", "card", "card_arrival"]
    assert answers[0].usage == Usage(30, 6, 3, "upstream")
    assert answers[0].served_by == "written-1"


@pytest.mark.parametrize(("language", "said", "end"), [("en", " card", "Answer:"), ("zh", "card", "回答：")])
def test_a_label_follows_the_question_with_a_blank_where_the_language_writes_one(
    language: str, said: str, end: str
) -> None:
    def weigh(prompt: str, text: str) -> float:
        assert prompt.endswith(end)
        return 0.0 if text == said else -9.0

    engine = WrittenEngine(can=("chat", "score"), weigh=weigh)
    assert score_labels(engine, classify_task(language=language), ROWS[:1])[0].value == "card"


def test_a_long_label_loses_by_the_sum_and_not_by_the_mean() -> None:
    task = classify_task(labels=("short", "long but much likelier word for word"))
    engine = WrittenEngine(
        can=("chat", "score"), weigh=lambda prompt, text: -2.0 if text == " short" else -0.5 * len(text.split())
    )
    assert score_labels(engine, task, ROWS[:1])[0].value == task.labels[1]
    assert score_labels(engine, task, ROWS[:1], per_token=False)[0].value == "short"


def test_calibration_takes_off_what_a_label_has_without_any_content() -> None:
    """Zhao et al. 2021: `refund` is likelier whatever is asked; the row speaks for `card`, less than that."""

    def weigh(prompt: str, text: str) -> float:
        bias = {"refund": -1.0, "card": -3.0, "card_arrival": -9.0}[text.strip()]
        return bias + ("row" in prompt and text == " card")

    engine = WrittenEngine(can=("chat", "score"), weigh=weigh)
    assert score_labels(engine, classify_task(), ROWS[:1])[0].value == "refund"
    calibrated = score_labels(engine, classify_task(), ROWS[:1], per_token=False, calibrate=True)[0]
    assert calibrated.value == "card"
    # Without the bias the three labels have 1, 0, 0 above their prior.
    assert calibrated.scores["card"] == pytest.approx(math.e / (math.e + 2))


def test_labels_can_only_be_scored_where_there_are_some_and_the_engine_scores() -> None:
    with pytest.raises(Unsupported, match="no labels"):
        score_labels(WrittenEngine(can=("score",)), tag_task(), [])
    with pytest.raises(Unsupported, match="cannot score"):
        score_labels(WrittenEngine(), classify_task(), ROWS)


def test_ties_go_to_the_first_name() -> None:
    assert list(likeliest(("b", "a"), np.zeros(2))) == ["b", "a"]
