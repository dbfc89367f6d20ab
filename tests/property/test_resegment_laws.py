from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.data.resegment import Resegmenter
from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train

TEXTS = [
    "the parcel was delivered late again",
    "请问我的包裹什么时候能到",
    "unbelievable deliveries",
    "退款还没有到账",
] * 4
KINDS = [("wordpiece", "bert"), ("bpe", "gpt"), ("unigram", "t5")]


@cache
def trained(algorithm: str, style: str) -> Tokenizer:
    config = TokenizerConfig(algorithm=algorithm, style=style, vocab_size=520, min_frequency=1, character_coverage=1.0)  # type: ignore[arg-type]
    return train(TEXTS, config, Path(mkdtemp()))


@pytest.mark.parametrize(("algorithm", "style"), KINDS)
@given(text=st.sampled_from(TEXTS), refuse=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_segmentation_spells_the_same_text(
    algorithm: str, style: str, text: str, refuse: float, seed: int
) -> None:
    tokenizer = trained(algorithm, style)
    ids = tokenizer.encode(text)
    other = Resegmenter(tokenizer).sample(ids, refuse, np.random.default_rng(seed))
    assert tokenizer.decode(other) == tokenizer.decode(ids)
    assert [at for at in other if at in tokenizer.special_ids] == [at for at in ids if at in tokenizer.special_ids]


@pytest.mark.parametrize(("algorithm", "style"), KINDS)
def test_refusing_all_matches_leaves_characters_and_none_the_longest(algorithm: str, style: str) -> None:
    tokenizer = trained(algorithm, style)
    ids, draw = tokenizer.encode("the parcel was delivered late again"), np.random.default_rng(0)
    assert len(Resegmenter(tokenizer).sample(ids, 0.0, draw)) <= len(ids)
    assert len(Resegmenter(tokenizer).sample(ids, 1.0, draw)) > 25


def test_the_same_draws_give_the_same_pieces() -> None:
    tokenizer = trained("wordpiece", "bert")
    ids, cut = tokenizer.encode("unbelievable deliveries"), Resegmenter(tokenizer)
    one, two, three = (cut.sample(ids, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == two != three
