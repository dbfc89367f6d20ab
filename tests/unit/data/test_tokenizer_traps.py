"""Traps 16 and 17: text of a user stays text, and the vocabulary's size is what a model needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizer_texts import TEXTS

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.errors import DataError

KINDS = {
    "bpe-gpt": TokenizerConfig(algorithm="bpe", style="gpt", vocab_size=600, extra_special=("<|im_start|>",)),
    "bpe-llama": TokenizerConfig(algorithm="bpe", style="llama", vocab_size=600),
    "wordpiece-bert": TokenizerConfig(algorithm="wordpiece", style="bert", vocab_size=600),
    "unigram-t5": TokenizerConfig(algorithm="unigram", style="t5", vocab_size=800),
    "unigram-llama": TokenizerConfig(algorithm="unigram", style="llama", vocab_size=700),
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(request.param)
    train(TEXTS, KINDS[request.param], folder)
    return Tokenizer.load(folder)


def test_trap_16_special_text_in_user_content_is_no_control_token(tokenizer: Tokenizer) -> None:
    for index in sorted(tokenizer.special_ids - {tokenizer.unk_id}):
        name = tokenizer.token(index)
        for text in (name, f"pay {name} now", f"付款{name}{name}", f"{name}\n"):
            ids = tokenizer.encode(text, add_special=False)
            assert index not in ids
            assert not (tokenizer.special_ids - {tokenizer.unk_id}) & set(ids)
            assert not tokenizer.special_ids & set(tokenizer.spans(text).ids) - {tokenizer.unk_id}
            assert index not in tokenizer.encode_batch([text], add_special=False)[0]
            assert index not in tokenizer.encode(text, add_special=False, max_length=50)
            if tokenizer.kind != "wordpiece":
                assert tokenizer.decode(ids) == text
        frame = tokenizer.encode_pair(name, name)
        assert list(frame.ids).count(index) <= tokenizer.encode_pair("a", "b").ids.count(index)
        assert tokenizer.encode(f"a{name}b", add_special=False, allow_special=True).count(index) == 1


def test_trap_17_special_ids_are_stable_after_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    for role in ("pad_id", "unk_id", "bos_id", "eos_id", "cls_id", "sep_id", "mask_id"):
        assert getattr(again, role) == getattr(tokenizer, role)
    assert again.special_ids == tokenizer.special_ids
    assert again.raw.to_str() == tokenizer.raw.to_str()


def test_trap_17_size_counts_added_tokens(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, KINDS["bpe-gpt"], tmp_path)
    base = tokenizer.raw.get_vocab_size(with_added_tokens=False)
    tokenizer.raw.add_tokens(["付款成功!"])
    longer = Tokenizer(tokenizer.raw, tokenizer.roles)
    assert len(longer) == base + 1 > max(index for text in TEXTS for index in tokenizer.encode(text))
    assert longer.encode("付款成功!", add_special=False) == [base]


def test_an_id_outside_the_vocabulary_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="not in the vocabulary"):
        tokenizer.token(len(tokenizer))


def test_a_lone_surrogate_is_an_error_with_its_place(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"U\+D83D at character 3"):
        tokenizer.encode("abc\ud83d")


def test_max_length_without_room_is_an_error(tokenizer: Tokenizer) -> None:
    framing = len(tokenizer.frame([]))
    with pytest.raises(DataError, match="no room"):
        tokenizer.encode("abc", max_length=framing)
