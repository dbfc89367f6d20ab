"""Word spans and the words of tokens."""

from __future__ import annotations

import pytest

from nacre.data import words
from nacre.data.words import word_ids, word_spans
from nacre.errors import MissingDependency


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


def test_english_words_numbers_and_marks() -> None:
    assert cut("Don't pay 1,299.50 twice—it’s naïve!") == [
        "Don't",
        "pay",
        "1,299.50",
        "twice",
        "—",
        "it’s",
        "naïve",
        "!",
    ]


def test_chinese_words_come_from_the_segmenter() -> None:
    assert cut("我在北京大学学习，很好。") == ["我", "在", "北京大学", "学习", "，", "很", "好", "。"]


def test_mixed_text() -> None:
    assert cut("用iPhone 15付款abc，OK吗？") == ["用", "iPhone", "15", "付款", "abc", "，", "OK", "吗", "？"]


def test_marks_and_joined_emoji_stay_with_their_base() -> None:
    assert cut("cafe\u0301x ❤️ok 👩‍👩‍👧! हिन्दी") == ["cafe\u0301x", "❤️", "ok", "👩‍👩‍👧", "!", "हिन्दी"]


def test_other_scripts() -> None:
    assert cut("Привет, мир! こんにちは 안녕") == ["Привет", ",", "мир", "!", "こんにちは", "안녕"]


def test_word_ids_follow_the_tokens() -> None:
    text = "refund 银行卡 now"
    offsets = [(0, 2), (2, 6), (6, 7), (7, 8), (8, 10), (10, 14)]
    assert word_ids(text, offsets) == [0, 0, None, 1, 1, 2]


def test_words_that_share_a_token_are_one() -> None:
    assert word_ids("我爱北京", [(0, 1), (1, 3), (3, 4)]) == [0, 1, 1]
    assert word_ids("a b c", [(0, 3), (3, 5)]) == [0, 1]


def test_empty_spans_have_no_word() -> None:
    assert word_ids("ab", [(0, 0), (0, 2), (2, 2)]) == [None, 0, None]
    assert word_spans(" \n\u3000") == []


def test_a_missing_segmenter_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.lazy.find_spec", lambda name: None)
    words._segmenter.cache_clear()
    try:
        assert cut("English only") == ["English", "only"]
        with pytest.raises(MissingDependency) as caught:
            word_spans("中文")
    finally:
        words._segmenter.cache_clear()
    assert "nacre[data]" in caught.value.remedy
