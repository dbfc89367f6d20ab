"""Laws of masking on any text: it comes back whole, findings stand apart, streams equal whole texts, bounded work."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.data.masking import KINDS, Masker, find, scrubbed

PIECES = (
    "11010519491231002X", "13800138000", "１３９００１３９０００", "zhang@qq.com", "京A12345", "010-62345678",
    "[PHONE_1]", "[ID_2]", "[", "]", "ID_1", "电话", "订单号", " ", "\n", "\u200b", "4111 1111 1111 1111",
    "sk-a1B2c3D4e5F6g7H8i9J0", "://", "@", "-----BEGIN", " PRIVATE KEY-----", "10.1.2.3", "::",
    "+1 212-555-0123", "GB82 WEST 1234 5698 7654 32", "é", "𝟏𝟑𝟖", "\\n", "\\u4e2d",
)  # fmt: skip
PARTS = st.one_of(st.sampled_from(PIECES), st.text(max_size=6), st.text("0123456789 -.", max_size=20))
TEXTS = st.lists(PARTS, max_size=12).map("".join)


@given(st.lists(TEXTS, max_size=4))
def test_what_was_masked_comes_back_whole(texts: list[str]) -> None:
    masker = Masker()
    masked = [masker.mask(text) for text in texts]
    assert [masker.restore(one) for one in masked] == texts


@given(TEXTS)
def test_findings_are_in_order_apart_and_say_what_they_cover(text: str) -> None:
    end = 0
    for one in find(text):
        assert one.start >= end
        assert one.start < one.end
        assert one.value == text[one.start : one.end]
        assert one.kind in KINDS
        end = one.end


@given(TEXTS, TEXTS, st.lists(st.integers(0, 60), max_size=8))
def test_a_stream_restores_to_what_the_whole_restores_to(prompt: str, noise: str, cuts: list[int]) -> None:
    masker = Masker()
    answer = noise.join(["", *masker.values, masker.mask(prompt), *list(masker.values)])
    restorer = masker.restorer()
    places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    out = "".join(restorer.feed(answer[a:b]) for a, b in pairwise(places))
    assert out + restorer.flush() == masker.restore(answer)


@given(TEXTS)
def test_scrubbing_twice_finds_no_more_of_what_was_scrubbed(text: str) -> None:
    for one in find(text):
        assert one.value not in scrubbed(one.value)


HOSTILE = (
    "1", "12 ", "1-", "1.", "(1", "+1", "@", "a@", "a.", "a@a.", "sk-", " sk-a1", "://", "a://b:", "eyJ",
    "eyJa.", ":", "a:", "::1", "GB82", "京A", "京A1", "-----BEGIN PRIVATE KEY-----", "-----BEGIN RSA",
    "-----END PRIVATE KEY-----", "password=", "token:a", "[ID_1]", "[ID_", "110105194912310", "86", "+86", "0",
    "(010)", "x@y.z", "６", "\u200b1", "\\n", "secretsecret", "E1234567", "tel", "AKIA", "4 ",
)  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_repetition_costs_in_proportion_to_its_length(piece: str) -> None:
    """Ten times the text may take thirty times as long, above a floor; a quadratic finder takes a hundred."""
    short, long = piece * (4_000 // len(piece)), piece * (40_000 // len(piece))
    spent = []
    for text in (short, long):
        began = time.process_time()
        find(text)
        spent.append(time.process_time() - began)
    assert spent[1] < 30 * max(spent[0], 0.02)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("a", "token"),
        ("sk-", "a"),
        ("://", "a:"),
        ("1", "a@b"),
        ("-----BEGIN", "A"),
        ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
    ],
)
def test_a_long_run_beside_a_mark_costs_in_proportion(one: str, many: str) -> None:
    began = time.process_time()
    for text in (one + many * 20_000, one * 20_000 + many, many + one * 20_000):
        find(text)
    assert time.process_time() - began < 10


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(PIECES + HOSTILE), min_size=1, max_size=3).map("".join))
def test_mixed_repetition_is_bounded_too(piece: str) -> None:
    text = piece * (10_000 // len(piece))
    began = time.process_time()
    Masker().mask(text)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("character", "1a@")
def test_a_megabyte_of_one_character_is_looked_through(character: str) -> None:
    began = time.process_time()
    find(character * 1_000_000)
    assert time.process_time() - began < 10
