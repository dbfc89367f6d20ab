"""Other versions of texts: what changes, what never does, in Chinese as in English."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.data.augment.neighbours import NeighbourConfig, neighbours
from nacre.data.augment.vary import Rates, Sources, homophones, neighbours_of, vary, vary_tokens
from nacre.data.words import word_spans
from nacre.errors import ConfigError, DataError

pytest.importorskip("rjieba")
ENGLISH = "Please send the second invoice again because the first never arrived"
CHINESE = "请再寄一次发票，因为第一张一直没有收到"


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def words(text: str) -> Counter[str]:
    return Counter(text[start:end] for start, end in word_spans(text))


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_deletion_takes_words_and_adds_none(text: str) -> None:
    tally: Counter[str] = Counter()
    shorter = vary(text, Rates(delete=0.4), Sources(), draws(), tally)
    assert 0 < len(shorter) < len(text)
    assert not Counter(shorter.replace(" ", "")) - Counter(text)
    assert tally["words deleted"] > 0
    assert "  " not in shorter


def test_swaps_keep_every_word() -> None:
    tally: Counter[str] = Counter()
    other = vary(ENGLISH, Rates(swap=0.5), Sources(), draws(), tally)
    assert other != ENGLISH
    assert words(other) == words(ENGLISH)
    assert tally["words swapped"] > 0
    mixed = vary(CHINESE, Rates(swap=0.5), Sources(), draws(1))
    assert mixed != CHINESE
    assert Counter(mixed) == Counter(CHINESE)
    assert mixed.index("，") > 0  # no word crosses a comma
    assert Counter(mixed.split("，")[0]) == Counter(CHINESE.split("，")[0])


def test_a_slip_of_the_finger_changes_one_letter_or_two() -> None:
    for seed in range(40):
        typed = vary("invoice", Rates(characters=0.999), Sources(), draws(seed))
        assert typed[0] == "i"
        assert abs(len(typed) - 7) <= 1
        lost = Counter("invoice") - Counter(typed)
        assert sum(lost.values()) <= 1
    assert neighbours_of("q") == "w"
    assert neighbours_of("S") == "AD"
    assert neighbours_of("й") == ""


def test_chinese_is_mistyped_by_sound() -> None:
    pytest.importorskip("pypinyin")
    pool = homophones(["他她它收手受首发法罚", CHINESE])
    assert set(pool["他"]) == {"她", "它"}
    assert "他" not in pool["他"]
    typed = vary("收到发票", Rates(characters=0.999), Sources(homophones=pool), draws())
    assert typed != "收到发票"
    assert len(typed) == 4
    assert all(one == other or other in pool[one] for one, other in zip("收到发票", typed, strict=True))


KEPT = ["https://example.org/a/b?c=d", "me@example.org", "3,000", "14:30", "A4", "v2.0"]


@pytest.mark.parametrize("kept", KEPT)
def test_numbers_and_addresses_stay(kept: str) -> None:
    text = f"{ENGLISH} {kept} and {CHINESE}，编号{kept}，谢谢"
    for seed in range(20):
        other = vary(text, Rates(delete=0.5, swap=0.5, characters=0.5), Sources(), draws(seed))
        assert other.count(kept) == 2, other


def test_synonyms_keep_the_case_and_are_drawn_from_the_table() -> None:
    sources = Sources({"invoice": ["bill", "receipt"], "please": ["kindly"]})
    seen = {vary("Please send the invoice", Rates(synonyms=0.9), sources, draws(seed)) for seed in range(30)}
    assert "Kindly send the bill" in seen
    assert "Kindly send the receipt" in seen
    assert all(one.startswith(("Please", "Kindly")) for one in seen)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), seed=st.integers(0, 99))
def test_a_text_never_becomes_empty_and_chance_is_all_there_is(text: str, seed: int) -> None:
    how = Rates(delete=0.9, swap=0.5, characters=0.5)
    first = vary(text, how, Sources(), draws(seed))
    assert bool(first.strip()) == bool(text.strip())
    assert first == vary(text, how, Sources(), draws(seed))


def test_tags_stay_true() -> None:
    tokens = [*"我昨天在北京买了苹果手机"]
    tags = ["O", "O", "O", "O", "B-LOC", "I-LOC", "O", "O", "B-ORG", "I-ORG", "O", "O"]
    for seed in range(30):
        kept, named = vary_tokens(tokens, tags, Rates(delete=0.4, swap=0.4), Sources(), draws(seed), Counter())
        assert len(kept) == len(named)
        assert [one for one, tag in zip(kept, named, strict=True) if tag != "O"] == ["北", "京", "苹", "果"]
        assert [tag for tag in named if tag != "O"] == ["B-LOC", "I-LOC", "B-ORG", "I-ORG"]
    with pytest.raises(ConfigError, match="synonyms"):
        vary_tokens(tokens, tags, Rates(synonyms=0.1), Sources(), draws(), Counter())


def test_words_in_the_same_company_are_neighbours() -> None:
    frames = ["the {} sat on the old mat", "a small {} ran over the wet street", "my {} sleeps near the warm stove"]
    others = ["he paid the {} with a new card", "the {} was sent by early post", "one {} came with the last order"]
    texts = [one.format(word) for one in frames for word in ("cat", "dog", "rat")]
    texts += [one.format(word) for one in others for word in ("bill", "invoice", "receipt")]
    found = neighbours(texts * 3, NeighbourConfig(least_count=3, dimensions=6, window=4, similarity=0.5, most=2))
    assert set(found["cat"]) == {"dog", "rat"}
    assert set(found["bill"]) == {"invoice", "receipt"}
    assert found == neighbours(texts * 3, NeighbourConfig(3, 6, 4, 0.5, 2))
    with pytest.raises(DataError, match="too few"):
        neighbours(texts, NeighbourConfig(dimensions=100))


def test_rates_that_cannot_be_meant_are_told() -> None:
    with pytest.raises(ConfigError, match="nothing would change"):
        Rates()
    with pytest.raises(ConfigError, match="delete"):
        Rates(delete=1.0)
