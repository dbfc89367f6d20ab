"""Nearness: label vectors, rankings, usage, and vectors that are not what they should be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from asking_stub import WrittenEngine, classify_task, rank_task

from nacre.engine.protocol import Embedded, EngineError, Unsupported, Usage
from nacre.errors import CheckpointError, DataError
from nacre.tiers.asking.asking import total_usage
from nacre.tiers.asking.vectors import NamedVectors, corpus_vectors, embed, label_vectors, rank_by_vectors, similarity

PLACES = {"up": (0.0, 2.0), "right": (3.0, 0.0), "left": (-1.0, 0.0), "diagonal": (5.0, 5.0)}


def place(text: str) -> Sequence[float]:
    return PLACES[text]


def engine() -> WrittenEngine:
    return WrittenEngine(can=("embed",), vector=place)


def test_a_label_is_the_mean_of_its_texts_each_of_which_counts_the_same() -> None:
    named = label_vectors(engine(), {"a": ("up", "right"), "b": ("left",)})
    assert named.names == ("a", "b")
    np.testing.assert_allclose(named.vectors, [[0.5**0.5, 0.5**0.5], [-1, 0]], atol=1e-6)
    assert named.usage == Usage(3, 0, 1, "upstream")


def test_the_nearest_label_answers_and_length_does_not_matter() -> None:
    named = label_vectors(engine(), {"north": ("up",), "east": ("right",), "west": ("left",)})
    rows = [{"text": "right"}, {"text": "up"}, {"text": "left"}]
    for batch in (1, 2, 64):
        answers = similarity(engine(), classify_task(), rows, named, batch=batch)
        assert [one.value for one in answers] == ["east", "north", "west"]
        assert total_usage(one.usage for one in answers).prompt_tokens == 3
        assert [row for row, one in enumerate(answers) if one.usage.requests] == list(range(0, 3, batch))
    assert answers[0].served_by == "written-1"
    assert next(iter(answers[0].scores)) == "east"
    assert sum(answers[0].scores.values()) == pytest.approx(1)


def test_passages_are_ranked_by_nearness_and_ties_keep_the_order_of_the_corpus() -> None:
    corpus = [{"id": name, "text": name} for name in ("left", "up", "diagonal", "right")]
    named = corpus_vectors(engine(), corpus)
    (answer,) = rank_by_vectors(engine(), rank_task(), [{"query": "diagonal"}], named, top=3)
    assert answer.value == ["diagonal", "up", "right"]
    many = NamedVectors(tuple(map(str, range(200))), np.tile(np.float32([[1, 0]]), (200, 1)))
    (answer,) = rank_by_vectors(engine(), rank_task(), [{"query": "right"}], many)
    assert answer.value == [str(number) for number in range(100)]


def test_vectors_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    named = label_vectors(engine(), {"上": ("up",), "b": ("right",)})
    named.save(tmp_path / "v.npz")
    read = NamedVectors.load(tmp_path / "v.npz")
    assert read.names == ("上", "b")
    np.testing.assert_array_equal(read.vectors, named.vectors)
    again = tmp_path / "again.npz"
    named.save(again)
    assert again.read_bytes() == (tmp_path / "v.npz").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"no zip", b"PK\x03\x04 cut short"])
def test_damaged_vectors_are_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "v.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match="no vectors"):
        NamedVectors.load(tmp_path / "v.npz")


def test_vectors_of_another_model_are_told() -> None:
    named = NamedVectors(("a",), np.ones((1, 3), dtype=np.float32))
    with pytest.raises(EngineError, match="2 dimensions, the rung was made with 3"):
        similarity(engine(), classify_task(), [{"text": "up"}], named)


@pytest.mark.parametrize("wrong", [np.ones((2, 2)), np.full((1, 2), np.nan), np.ones(2)])
def test_what_is_not_one_finite_vector_per_text_is_an_error(wrong: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = engine()
    monkeypatch.setattr(broken, "embed", lambda texts: Embedded(wrong.astype(np.float32), "m"))
    with pytest.raises(EngineError, match="one vector per text"):
        embed(broken, ["up"])


def test_texts_read_only_in_part_are_counted_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    short = engine()
    monkeypatch.setattr(short, "embed", lambda texts: Embedded(np.ones((len(texts), 2), np.float32), "m", truncated=1))
    with caplog.at_level(logging.WARNING):
        assert embed(short, ["up", "left", "right"], batch=2).truncated == 2
    assert "only the beginning of 2 of 3 texts" in caplog.text


def test_an_empty_vector_is_near_to_nothing() -> None:
    still = WrittenEngine(can=("embed",), vector=lambda text: (0.0, 0.0))
    named = NamedVectors(("a", "b"), np.eye(2, dtype=np.float32))
    assert similarity(still, classify_task(), [{"text": ""}], named)[0].value == "a"


def test_what_cannot_be_embedded_is_told() -> None:
    with pytest.raises(Unsupported, match="cannot embed"):
        embed(WrittenEngine(), ["up"])
    with pytest.raises(DataError, match="no text"):
        embed(engine(), [])
    with pytest.raises(DataError, match="label 'a'"):
        label_vectors(engine(), {"a": ()})
    named = NamedVectors(("a",), np.ones((1, 2), dtype=np.float32))
    assert similarity(engine(), classify_task(), [], named) == rank_by_vectors(engine(), rank_task(), [], named) == []
