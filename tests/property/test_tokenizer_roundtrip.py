"""Laws on arbitrary text: what is encoded comes back, words and windows leave nothing out."""

from __future__ import annotations

import itertools
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import TEXTS

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.data.window import text_windows
from nacre.data.words import word_ids, word_spans

_EMOJI = ("🙂", "👩\u200d👩\u200d👧", "👍🏽")
_WORDS = ("银行卡", "退款", "refund", "don't", "é", "e\u0301", "１２", "𠮷", "مرحبا", "…")
_BLANKS = (" ", "  ", "\n", "\t", "\r\n", "\u3000", "\u00a0", "\x00", "\ufffd")
_CONTROL = ("▁", "Ġ", "##a", "<0x41>", "</s>", "[MASK]", "<extra_id_0>", "<|endoftext|>")
_CHUNKS = st.sampled_from([*_EMOJI, *_WORDS, *_BLANKS, *_CONTROL])
TEXT = st.one_of(st.text(max_size=60), st.lists(_CHUNKS, max_size=12).map("".join))


@cache
def tokenizer(name: str) -> Tokenizer:
    algorithm, style = name.split("-")
    config = TokenizerConfig(algorithm=algorithm, style=style, vocab_size=800)
    with tempfile.TemporaryDirectory() as folder:
        train(TEXTS, config, Path(folder))
        return Tokenizer.load(folder)


@pytest.mark.parametrize("name", ["bpe-gpt", "bpe-llama", "bpe-roberta", "unigram-t5", "unigram-llama"])
@given(text=TEXT)
@settings(max_examples=150, deadline=None)
def test_trap_17_any_text_comes_back(name: str, text: str) -> None:
    one = tokenizer(name)
    ids = one.encode(text, add_special=False)
    assert one.decode(ids) == text
    assert one.decode(one.encode(text)) == text
    assert not one.special_ids & set(ids)
    assert all(0 <= index < len(one) for index in ids)


@given(data=st.binary(max_size=80))
@settings(max_examples=150, deadline=None)
def test_trap_17_any_bytes_come_back(data: bytes) -> None:
    one = tokenizer("bpe-gpt")
    text = data.decode("latin-1")
    assert one.decode(one.encode(text)).encode("latin-1") == data
    valid = data.decode("utf-8", errors="replace")
    assert one.decode(one.encode(valid)) == valid


@pytest.mark.parametrize("name", ["bpe-gpt", "wordpiece-bert", "unigram-t5"])
@given(text=TEXT, size=st.integers(4, 20), stride=st.integers(1, 20))
@settings(max_examples=80, deadline=None)
def test_trap_18_windows_join_to_the_text(name: str, text: str, size: int, stride: int) -> None:
    one = tokenizer(name)
    stride = min(stride, size - len(one.frame([])))
    windows = text_windows(one, text, size, stride)
    ids = one.encode(text, add_special=False)
    seen = [index for window in windows for index in range(*window.tokens)]
    assert sorted(set(seen)) == list(range(len(ids)))
    assert windows[0].characters[0] == 0
    assert windows[-1].characters[1] == len(text)
    for before, after in itertools.pairwise(windows):
        assert after.characters[0] <= before.characters[1]
        assert before.tokens[1] - after.tokens[0] == size - len(one.frame([])) - stride


@given(text=TEXT)
@settings(max_examples=150, deadline=None)
def test_words_hold_every_character_but_white_space_once(text: str) -> None:
    spans = word_spans(text)
    covered = [index for span in spans for index in range(*span)]
    assert covered == sorted(set(covered))
    blank = set(range(len(text))) - set(covered)
    assert all(text[index].isspace() for index in blank)


@pytest.mark.parametrize("name", ["bpe-gpt", "wordpiece-bert", "unigram-t5"])
@given(text=TEXT)
@settings(max_examples=80, deadline=None)
def test_tokens_of_one_word_have_one_number(name: str, text: str) -> None:
    offsets = tokenizer(name).offsets(text)
    numbers = word_ids(text, offsets)
    assert len(numbers) == len(offsets)
    for start, end in word_spans(text):
        mine = {number for number, span in zip(numbers, offsets, strict=True) if span[0] < end and start < span[1]}
        assert len(mine) <= 1
        assert None not in mine
