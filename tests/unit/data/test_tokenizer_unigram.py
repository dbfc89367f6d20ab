"""The Unigram trainer against what can be computed by hand and against the library's segmentation."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import exp, log

import numpy as np
import pytest
from tokenizer_texts import TEXTS
from tokenizers import Tokenizer, models

from nacre.data import unigram
from nacre.data.unigram import UnigramSizes, train_unigram


def words_of(texts: list[str]) -> Counter[str]:
    return Counter(word for text in texts for word in text.split())


def small() -> tuple[unigram._Corpus, unigram._Pieces]:
    words = Counter({"abab": 3, "abc": 2, "cab": 4, "b": 1})
    sizes = UnigramSizes(100, 3, 1)
    corpus = unigram._Corpus.of(words, ["a", "b", "c"], sizes)
    return corpus, unigram._seed(corpus, ["a", "b", "c"], sizes)


def segmentations(word: str, pieces: dict[str, float]) -> list[tuple[list[str], float]]:
    found = []
    for cuts in product([False, True], repeat=len(word) - 1):
        parts, last = [], 0
        for at, cut in enumerate(cuts, start=1):
            if cut:
                parts.append(word[last:at])
                last = at
        parts.append(word[last:])
        if all(part in pieces for part in parts):
            found.append((parts, sum(pieces[part] for part in parts)))
    return found


def test_seeds_are_substrings_with_their_counts() -> None:
    _, pieces = small()
    assert pieces.texts[:3] == ["a", "b", "c"]
    # ab: 3 x 2 + 2 + 4 = 12; ca: 4, always inside cab; ba and aba: 3, always inside (a)bab beyond three characters
    assert set(pieces.texts[3:]) == {"ab", "cab", "abc", "aba", "bab"} | ({"bc"} & set(pieces.texts))
    weights = {text: exp(score) for text, score in zip(pieces.texts, pieces.scores, strict=True)}
    assert weights["ab"] / weights["cab"] == pytest.approx(12 * 2 / (4 * 3))


def test_expected_counts_are_those_of_all_segmentations() -> None:
    corpus, pieces = small()
    scores = dict(zip(pieces.texts, pieces.scores.tolist(), strict=True))
    by_hand: Counter[str] = Counter()
    for word, count in {"abab": 3, "abc": 2, "cab": 4, "b": 1}.items():
        ways = segmentations(word, scores)
        total = sum(exp(score) for _, score in ways)
        for parts, score in ways:
            for part in parts:
                by_hand[part] += count * exp(score) / total
    expected = unigram._expected(corpus, pieces.scores)
    assert dict(zip(pieces.texts, expected.tolist(), strict=True)) == pytest.approx(
        {text: by_hand[text] for text in pieces.texts}, abs=1e-9
    )


def test_viterbi_is_the_best_segmentation() -> None:
    corpus, pieces = small()
    scores = dict(zip(pieces.texts, pieces.scores.tolist(), strict=True))
    at = 0
    for block, counts in corpus.batches():
        steps = list(unigram._viterbi(block, unigram._lattice(block, pieces.scores)))
        for row in range(len(counts)):
            word = corpus.text[at : at + block.shape[1]]
            at += block.shape[1]
            found = [pieces.texts[step[row]] for step in reversed(steps) if step[row] != unigram.ABSENT]
            assert "".join(found) == word
            best = max(score for _, score in segmentations(word, scores))
            assert sum(scores[part] for part in found) == pytest.approx(best)


def test_digamma_against_its_recurrence_and_a_known_value() -> None:
    x = np.array([0.5, 1.0, 3.7, 12.0, 1e6])
    assert unigram._digamma(x)[1] == pytest.approx(-0.5772156649015329, abs=1e-9)
    assert unigram._digamma(x + 1) - unigram._digamma(x) == pytest.approx(1 / x, abs=1e-9)
    assert unigram._digamma(x)[4] == pytest.approx(log(1e6) - 5e-7, abs=1e-9)


def test_pieces_are_a_vocabulary_of_the_asked_size() -> None:
    words = words_of(TEXTS * 3)
    alphabet = sorted({char for word in words for char in word})
    pieces = train_unigram(words, alphabet, UnigramSizes(len(alphabet) + 60, 8, 2))
    texts = [text for text, _ in pieces]
    assert len(texts) == len(set(texts)) == len(alphabet) + 60
    assert set(alphabet) <= set(texts)
    assert [score for _, score in pieces] == sorted((score for _, score in pieces), reverse=True)
    assert all(len(text) <= 8 for text in texts)
    assert {text for text in texts if len(text) > 1} <= {
        word[start:end] for word in words for start in range(len(word)) for end in range(start + 2, len(word) + 1)
    }
    raw = Tokenizer(models.Unigram([("\x00", -99.0), *pieces], 0, False))
    n_tokens = sum(count * len(raw.encode(word).ids) for word, count in words.items())
    n_chars = sum(count * len(word) for word, count in words.items())
    assert n_tokens < 0.6 * n_chars


def test_long_words_and_unknown_characters_do_no_harm() -> None:
    words = Counter({"a" * 1000: 1, "ab": 5, "xy": 9})
    pieces = dict(train_unigram(words, ["a", "b"], UnigramSizes(20, 16, 1)))
    assert set("".join(pieces)) == {"a", "b"}
    assert all(score < 0 for score in pieces.values())


def test_an_alphabet_without_words_is_still_a_vocabulary() -> None:
    assert [text for text, _ in train_unigram(Counter({"xy": 2}), ["a", "b"], UnigramSizes(10, 4, 1))] == ["a", "b"]
