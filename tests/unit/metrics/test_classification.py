"""Metrics on cases small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nacre.errors import DataError
from nacre.metrics import classification as metrics
from nacre.metrics.entities import Entity, entity_rows, entity_scores, malformed, read_entities, scheme_of
from nacre.metrics.language import LanguageScore, compare_language


def test_confusion_matrix_rows_are_true_classes() -> None:
    matrix = metrics.confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0], 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_macro_average_leaves_out_classes_that_do_not_occur() -> None:
    matrix = metrics.confusion_matrix([0, 1], [0, 1], 5)
    assert metrics.averages(matrix)["macro_f1"] == 1.0


def test_micro_average_is_accuracy() -> None:
    true, predicted = [0, 1, 2, 2], [0, 2, 2, 1]
    assert metrics.averages(metrics.confusion_matrix(true, predicted, 3))["micro_f1"] == metrics.accuracy(
        true, predicted
    )


@pytest.mark.parametrize("true", [[0, 5], [-1, 0]])
def test_class_outside_the_list_is_an_error(true: list[int]) -> None:
    with pytest.raises(DataError, match="class index"):
        metrics.confusion_matrix(true, [0, 0], 2)


def test_empty_and_unequal_inputs_are_errors() -> None:
    with pytest.raises(DataError, match="no example"):
        metrics.accuracy([], [])
    with pytest.raises(DataError, match="differ in shape"):
        metrics.accuracy([1, 2], [1])


def test_roc_of_a_perfect_and_a_reversed_score() -> None:
    assert metrics.roc([False, True], [0.1, 0.9]).auc == 1.0
    assert metrics.roc([False, True], [0.9, 0.1]).auc == 0.0


def test_roc_needs_both_classes() -> None:
    with pytest.raises(DataError, match="only one kind"):
        metrics.roc([True, True], [0.1, 0.2])


def test_one_vs_rest_names_classes_it_cannot_score() -> None:
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    result = metrics.one_vs_rest([0, 1, 0], scores)
    assert result.undefined == (2,)
    assert result.macro == 1.0


def test_calibration_by_hand() -> None:
    # Bin (.8, .9]: two examples, one right, confidence .9; bin (.5, .6]: one example, right, confidence .6.
    result = metrics.calibration([0.9, 0.9, 0.6], [True, False, True], bins=10)
    assert result.error == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.4)
    assert result.count.sum() == 3


def test_calibration_refuses_logits() -> None:
    with pytest.raises(DataError, match="must lie in"):
        metrics.calibration([3.2], [True])


def test_uniform_model_over_bytes_costs_eight_bits() -> None:
    score = LanguageScore(nll_nats=100 * math.log(256), tokens=100, text_bytes=100)
    assert score.perplexity == pytest.approx(256)
    assert score.bits_per_byte == pytest.approx(8)


def test_trap_54_comparisons_across_tokenizers_in_bits_per_byte_only() -> None:
    """The same information in half as many tokens: perplexity squares, bits per byte stay equal."""
    fine = LanguageScore(nll_nats=70.0, tokens=100, text_bytes=120, tokenizer="sha256:a")
    coarse = LanguageScore(nll_nats=70.0, tokens=50, text_bytes=120, tokenizer="sha256:b")
    assert coarse.perplexity == pytest.approx(fine.perplexity**2)
    assert compare_language(fine, coarse) == 0
    with pytest.raises(DataError, match="different tokenizers"):
        compare_language(fine, coarse, metric="perplexity")
    with pytest.raises(DataError, match="different tokenizers"):
        compare_language(LanguageScore(1.0, 1, 1), LanguageScore(1.0, 1, 1), metric="perplexity")


def test_trap_54_bits_per_byte_of_different_texts_are_not_compared() -> None:
    with pytest.raises(DataError, match="different texts"):
        compare_language(LanguageScore(1.0, 1, 10), LanguageScore(1.0, 1, 11))


# --- entities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "conll", "strict"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)], [("PER", 0, 2), ("LOC", 3, 4)]),
        # A stray I opens an entity for conlleval and seqeval's default, none in strict reading.
        ("O I-PER I-PER", [("PER", 1, 3)], []),
        ("B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)], [("PER", 0, 1)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)], [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER O I-PER", [("PER", 0, 1), ("PER", 2, 3)], [("PER", 0, 1)]),
        ("O O", [], []),
        ("", [], []),
    ],
)
def test_bio_entities(tags: str, conll: list[tuple[str, int, int]], strict: list[tuple[str, int, int]]) -> None:
    assert read_entities(tags.split(), "bio", "conll") == [Entity(*entity) for entity in conll]
    assert read_entities(tags.split(), "bio", "strict") == [Entity(*entity) for entity in strict]


@pytest.mark.parametrize(
    ("tags", "conll", "strict"),
    [
        ("B-PER I-PER E-PER S-LOC", [("PER", 0, 3), ("LOC", 3, 4)], [("PER", 0, 3), ("LOC", 3, 4)]),
        ("B-NAME M-NAME E-NAME", [("NAME", 0, 3)], [("NAME", 0, 3)]),  # BMES, as Chinese corpora write it
        ("S-PER S-PER", [("PER", 0, 1), ("PER", 1, 2)], [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER I-PER O", [("PER", 0, 2)], []),
        ("E-PER E-PER", [("PER", 0, 1), ("PER", 1, 2)], []),
        ("B-PER E-PER I-PER", [("PER", 0, 2), ("PER", 2, 3)], [("PER", 0, 2)]),
    ],
)
def test_bioes_entities(tags: str, conll: list[tuple[str, int, int]], strict: list[tuple[str, int, int]]) -> None:
    assert read_entities(tags.split(), "bioes", "conll") == [Entity(*entity) for entity in conll]
    assert read_entities(tags.split(), "bioes", "strict") == [Entity(*entity) for entity in strict]


def test_scheme_is_recognised() -> None:
    assert scheme_of([["B-PER", "I-PER"], ["O"]]) == "bio"
    assert scheme_of([["B-PER", "M-PER"], ["S-LOC"]]) == "bioes"


def test_entity_scores_want_type_and_both_ends() -> None:
    """The example of seqeval's README: one of two entities is found exactly: precision, recall and F1 are one half."""
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    guess = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    scores = entity_scores(entity_rows(true, guess))
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 0.5, 0.5)
    assert scores.per_kind["PER"] == (1.0, 1.0, 1.0, 1)
    assert scores.per_kind["MISC"] == (0.0, 0.0, 0.0, 1)


def test_malformed_counts_what_the_readings_disagree_on() -> None:
    assert malformed([["O", "I-PER"], ["B-PER", "I-PER"]], "bio") == 1


def test_a_truncated_prediction_is_an_error() -> None:
    with pytest.raises(DataError, match="sentence 0 has 2 tags"):
        entity_rows([["O", "O"]], [["O"]])


@pytest.mark.parametrize("tag", ["B", "X-PER", "PER", "I-", ""])
def test_bad_tags_are_errors(tag: str) -> None:
    with pytest.raises(DataError, match="neither O nor"):
        read_entities([tag])
