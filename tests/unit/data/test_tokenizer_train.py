"""Training: special tokens, sizes, determinism, and what others read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizer_texts import TEXTS

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.errors import ConfigError, DataError

CONFIGS = {
    "bpe-gpt": TokenizerConfig(algorithm="bpe", style="gpt", vocab_size=600),
    "bpe-llama": TokenizerConfig(algorithm="bpe", style="llama", vocab_size=600),
    "bpe-roberta": TokenizerConfig(algorithm="bpe", style="roberta", vocab_size=600),
    "wordpiece-bert": TokenizerConfig(algorithm="wordpiece", style="bert", vocab_size=400),
    "unigram-t5": TokenizerConfig(algorithm="unigram", style="t5", vocab_size=600),
    "unigram-llama": TokenizerConfig(algorithm="unigram", style="llama", vocab_size=510),
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return train(TEXTS, CONFIGS[request.param], folder), folder


def test_files_load_in_transformers_with_the_same_ids(trained: tuple[Tokenizer, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer, folder = trained
    other = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(other) == len(tokenizer)
    for text in (*TEXTS, "Where's my parcel? 我的包裹在哪里 🙂", ""):
        assert other(text)["input_ids"] == tokenizer.encode(text)
        assert other(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text, add_special=False)
    pair = tokenizer.encode_pair("my card", "银行卡丢了")
    theirs = other("my card", "银行卡丢了")
    assert theirs["input_ids"] == pair.ids
    assert theirs.get("token_type_ids", pair.token_types) == pair.token_types
    for role in ("pad", "unk", "bos", "eos", "cls", "sep", "mask"):
        assert getattr(other, f"{role}_token_id") == getattr(tokenizer, f"{role}_id"), role


def test_fast_tokenizer_reads_the_one_file(trained: tuple[Tokenizer, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer, folder = trained
    other = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert other("Refund 退款 42")["input_ids"] == tokenizer.encode("Refund 退款 42")


def test_batch_is_encode_of_each(trained: tuple[Tokenizer, Path]) -> None:
    tokenizer, _ = trained
    for limit in (None, 6):
        batch = tokenizer.encode_batch(TEXTS[:5], max_length=limit)
        assert batch == [tokenizer.encode(text, max_length=limit) for text in TEXTS[:5]]


def test_max_length_keeps_the_special_tokens(trained: tuple[Tokenizer, Path]) -> None:
    tokenizer, _ = trained
    whole, cut = tokenizer.encode(TEXTS[0]), tokenizer.encode(TEXTS[0], max_length=6)
    assert len(cut) == 6
    bare = tokenizer.encode(TEXTS[0], add_special=False)
    assert whole == tokenizer.frame(bare)
    assert cut == tokenizer.frame(bare[: 6 - len(tokenizer.frame([]))])
    pair = tokenizer.encode_pair("a", TEXTS[0], max_length=9)
    assert len(pair.ids) == len(pair.token_types) == 9
    assert tokenizer.encode("a", add_special=False)[0] in pair.ids


def test_ids_are_dense_and_within_the_size(trained: tuple[Tokenizer, Path]) -> None:
    tokenizer, _ = trained
    assert sorted(tokenizer.raw.get_vocab().values()) == list(range(len(tokenizer)))


def test_pair_template_of_bert_has_token_types(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, CONFIGS["wordpiece-bert"], tmp_path)
    pair = tokenizer.encode_pair("card", "卡")
    assert pair.ids[0] == tokenizer.cls_id
    assert [index for index, one in enumerate(pair.ids) if one == tokenizer.sep_id][-1] == len(pair.ids) - 1
    middle = pair.ids.index(tokenizer.sep_id)
    assert pair.token_types == [0] * (middle + 1) + [1] * (len(pair.ids) - middle - 1)


def test_sentinels_close_the_vocabulary_of_t5(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, CONFIGS["unigram-t5"], tmp_path)
    assert len(tokenizer.sentinel_ids) == 100
    assert tokenizer.sentinel_ids == list(range(len(tokenizer) - 1, len(tokenizer) - 101, -1))
    assert tokenizer.encode("card")[-1] == tokenizer.eos_id
    assert Tokenizer.load(tmp_path).sentinel_ids == tokenizer.sentinel_ids


def test_chinese_characters_stand_alone_in_wordpiece(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, CONFIGS["wordpiece-bert"], tmp_path)
    vocabulary = tokenizer.raw.get_vocab()
    han = [token for token in vocabulary if any("\u4e00" <= char <= "\u9fff" for char in token)]
    assert len(han) > 20
    assert all(len(token) == 1 for token in han)


@pytest.mark.parametrize("name", ["wordpiece-bert", "unigram-t5", "bpe-gpt"])
def test_training_gives_the_same_bytes_in_other_processes(name: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nacre.data.tokenizer import train\n"
        "from test_tokenizer_train import CONFIGS, TEXTS; train(TEXTS, CONFIGS[sys.argv[1]], Path(sys.argv[2]))"
    )
    seen = set()
    for run in range(3):
        folder = tmp_path / str(run)
        environment = os.environ | {"PYTHONHASHSEED": str(run), "TOKENIZERS_PARALLELISM": "true" if run else "false"}
        search = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(KIT)]!r}\n"
        subprocess.run([sys.executable, "-c", search + code, name, str(folder)], env=environment, check=True)
        seen.add((folder / "tokenizer.json").read_bytes())
    assert len(seen) == 1


KIT = Path(__file__).parents[2] / "kit"


def test_unigram_does_not_depend_on_the_order_of_texts(tmp_path: Path) -> None:
    train(TEXTS, CONFIGS["unigram-t5"], tmp_path / "a")
    train(TEXTS[::-1], CONFIGS["unigram-t5"], tmp_path / "b")
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_a_vocabulary_that_the_data_cannot_fill_is_reported(tmp_path: Path) -> None:
    class Notes:
        def __init__(self) -> None:
            self.seen: list[tuple[str, dict[str, object]]] = []

        def update(self, step: int, total: int | None = None, **metrics: object) -> None:
            pass

        def note(self, event: str, **details: object) -> None:
            self.seen.append((event, details))

    for algorithm, style in (("bpe", "gpt"), ("wordpiece", "bert"), ("unigram", "t5")):
        config = TokenizerConfig(algorithm=algorithm, style=style, vocab_size=50_000)
        notes = Notes()
        tokenizer = train(TEXTS, config, tmp_path / algorithm, progress=notes)
        assert notes.seen == [("tokenizer.smaller_than_asked", {"asked": 50_000, "obtained": len(tokenizer)})]
        assert tokenizer.training is not None
        assert tokenizer.training.obtained == len(tokenizer) < 50_000
        with pytest.raises(DataError, match="the config demands 50,000"):
            train(TEXTS, replace(config, require_size=True), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "bep"}, "algorithm 'bep'"),
        ({"style": "berd"}, "style 'berd'"),
        ({"vocab_size": 50}, "no room"),
        ({"algorithm": "wordpiece", "style": "gpt"}, "unknown token"),
        ({"character_coverage": 0.1}, "character_coverage"),
        ({"extra_special": ("[A]", "[A]")}, "extra_special"),
        ({"min_frequency": 0}, "min_frequency"),
        ({"normalize": "nfd"}, "normalize"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(TEXTS, replace(TokenizerConfig(), **changes), tmp_path)


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_empty_data_is_an_error(algorithm: str, texts: list[str], tmp_path: Path) -> None:
    config = TokenizerConfig(algorithm=algorithm, style="bert" if algorithm == "wordpiece" else "llama")
    with pytest.raises(DataError, match="no text"):
        train(texts, config, tmp_path)


def test_extra_special_tokens_follow_the_style(tmp_path: Path) -> None:
    config = replace(CONFIGS["bpe-llama"], extra_special=("<|user|>", "<|answer|>"))
    tokenizer = train(TEXTS, config, tmp_path)
    assert [tokenizer.id_of(token) for token in ("<|user|>", "<|answer|>")] == [4, 5]
    assert tokenizer.encode("<|user|>hi", add_special=False, allow_special=True)[0] == 4
    assert {4, 5} <= tokenizer.special_ids


def test_settings_survive_a_load_and_a_save(tmp_path: Path) -> None:
    train(TEXTS, CONFIGS["bpe-llama"], tmp_path / "a")
    path = tmp_path / "a/tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{{ messages }}"}))
    Tokenizer.load(tmp_path / "a").save(tmp_path / "b")
    assert json.loads((tmp_path / "b/tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_lowering_also_lowers_what_is_encoded(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, replace(CONFIGS["wordpiece-bert"], lowercase=True), tmp_path)
    assert tokenizer.encode("CARD Ｃafé") == tokenizer.encode("card ｃafe")
