"""A smaller kernel computes what the larger one's layers and tokens compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, tokenizer
from pico import pico, tokens

from nacre.data.tokenizer import Tokenizer
from nacre.data.tokenizer_trim import trimmed
from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.kernel.shrink import chosen, shrunk


@pytest.mark.parametrize("name", ["bert", "llama2", "gpt2", "t5"])
def test_all_layers_and_tokens_are_the_kernel_itself(name: str, tmp_path: Path) -> None:
    kernel = pico(name)
    same = shrunk(kernel, range(2))
    assert same.config == kernel.config
    for mine, theirs in zip(same.state_dict().items(), kernel.state_dict().items(), strict=True):
        assert mine[0] == theirs[0]
        assert torch.equal(mine[1], theirs[1])
    hf.save(same, tmp_path)


def test_takes_the_layers_that_are_named() -> None:
    kernel, ids = pico("llama2", layers=4), tokens(2, 7)
    small = shrunk(kernel, [1, 3])
    assert small.decoder is not None
    assert kernel.decoder is not None
    kernel.decoder.layers = torch.nn.ModuleList([kernel.decoder.layers[1], kernel.decoder.layers[3]])
    assert torch.equal(small(ids).hidden, kernel(ids).hidden)


def test_tokens_keep_their_embeddings_under_new_numbers() -> None:
    kernel, kept = pico("bert", head="mlm"), [0, 3, 5, 6, 8, 20, 21, 40]
    small = shrunk(kernel, range(2), kept)
    ids = torch.tensor([[1, 4, 7, 2]])
    theirs = torch.tensor([[kept[index] for index in ids[0].tolist()]])
    torch.testing.assert_close(small(ids).hidden, kernel(theirs).hidden)
    torch.testing.assert_close(small.lm_logits(small(ids).hidden), kernel.lm_logits(kernel(theirs).hidden)[..., kept])
    assert small.config.vocab_size == 8


def test_which_layers() -> None:
    assert chosen(6, 12, "even") == (0, 2, 4, 6, 8, 10)
    assert chosen(2, 6, "even") == (0, 3)
    assert chosen(2, 6, "first") == (0, 1)
    assert chosen(2, 6, "last") == (4, 5)
    with pytest.raises(ConfigError, match="7 layers"):
        chosen(7, 6, "even")


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="layers"):
        shrunk(pico("bert"), [0, 2])
    with pytest.raises(ConfigError, match="twice"):
        shrunk(pico("bert"), [0], [1, 1, 2])
    with pytest.raises(ConfigError, match="pad_id"):
        shrunk(pico("bert", pad_id=0), [0], [1, 2, 3])


def test_a_trimmed_tokenizer_cuts_its_texts_as_before(tmp_path: Path) -> None:
    whole = tokenizer("bert")
    texts = [*ENGLISH[:2], CHINESE[0]]
    small, old = trimmed(whole, texts)
    assert len(small) == len(old) < len(whole)
    for text in texts:
        assert [old[index] for index in small.encode(text)] == whole.encode(text)
    assert small.decode(small.encode("parcel card")) == whole.decode(whole.encode("parcel card"))
    small.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode_pair("parcel", texts[1]) == small.encode_pair("parcel", texts[1])
    assert {again.token(one) for one in again.special_ids} == {whole.token(one) for one in whole.special_ids}


def test_special_tokens_keep_their_places_around_a_text(tmp_path: Path) -> None:
    """Real vocabularies have their special tokens somewhere in the middle."""
    words = [
        "where",
        "is",
        "the",
        "card",
        "##s",
        "c",
        "##a",
        "##r",
        "##d",
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    whole = Tokenizer.load(tmp_path)
    small, old = trimmed(whole, ["the card"])
    assert [small.token(index) for index in small.encode("the card")] == ["[CLS]", "the", "card", "[SEP]"]
    assert [old[index] for index in small.encode("the card")] == whole.encode("the card")
    assert small.pad_id == old.index(words.index("[PAD]"))


def test_other_tokenizers_are_not_trimmed() -> None:
    with pytest.raises(ConfigError, match="cannot be trimmed"):
        trimmed(tokenizer("gpt"), ENGLISH)
