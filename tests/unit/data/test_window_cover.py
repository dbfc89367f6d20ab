"""Trap 18: windows cover every token and every character, as declared."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tokenizer_texts import TEXTS

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.data.window import text_windows, token_windows
from nacre.errors import ConfigError


@pytest.fixture(scope="module", params=["bpe-gpt", "wordpiece-bert", "unigram-t5"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    algorithm, style = request.param.split("-")
    config = TokenizerConfig(algorithm=algorithm, style=style, vocab_size=800)
    return train(TEXTS, config, tmp_path_factory.mktemp("windows"))


@pytest.mark.parametrize(("size", "stride"), [(5, 5), (8, 3), (8, 7), (30, 1), (30, 29), (1000, 10)])
def test_trap_18_windows_cover_every_character(tokenizer: Tokenizer, size: int, stride: int) -> None:
    text = "\n  ".join(TEXTS) + " 🙂\u200d\u0000 end  "
    ids, offsets = tokenizer.spans(text)
    framing = len(tokenizer.frame([]))
    stride = min(stride, size - framing)
    found = text_windows(tokenizer, text, size, stride)
    expected = 1 + max(0, -(-(len(ids) - (size - framing)) // stride))
    assert len(found) == expected
    assert found[0].characters[0] == 0
    assert found[-1].characters[1] == len(text)
    for number, window in enumerate(found):
        start, end = window.tokens
        assert window.ids == tokenizer.frame(ids[start:end])
        assert len(window.ids) == len(window.offsets) <= size
        assert [span for span in window.offsets if span is not None] == offsets[start:end]
        assert start == number * stride
        assert window.characters[0] == (offsets[start][0] if start else 0)
        assert end - start == size - framing or window is found[-1]
    for one, following in itertools.pairwise(found):
        assert following.tokens[0] <= one.tokens[1] < following.tokens[1]
        assert following.characters[0] <= one.characters[1] <= following.characters[1]
        assert one.tokens[1] - following.tokens[0] == size - framing - stride
    joined = "".join(text[one.characters[0] : following.characters[0]] for one, following in itertools.pairwise(found))
    assert joined + text[found[-1].characters[0] :] == text


def test_token_windows_by_hand() -> None:
    assert token_windows(10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert token_windows(10, 4, 4) == [(0, 4), (4, 8), (8, 10)]
    assert token_windows(4, 4, 1) == [(0, 4)]
    assert token_windows(0, 4, 2) == [(0, 0)]


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_text_is_one_window(tokenizer: Tokenizer, text: str) -> None:
    (window,) = text_windows(tokenizer, text, 8, 4)
    assert window.ids == tokenizer.encode(text)
    assert window.characters == (0, len(text))


@pytest.mark.parametrize(("size", "stride"), [(4, 0), (4, 5), (0, 1)])
def test_windows_that_would_skip_text_are_refused(size: int, stride: int) -> None:
    with pytest.raises(ConfigError):
        token_windows(10, size, stride)


def test_a_size_without_room_is_refused(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, TokenizerConfig(algorithm="wordpiece", style="bert", vocab_size=600), tmp_path)
    with pytest.raises(ConfigError, match="no room"):
        text_windows(tokenizer, "abc", 2, 1)
