"""Folders that other projects wrote: the four formats, their ids, and clear errors for damaged ones."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizer_texts import TEXTS

from nacre.data.tokenizer import Tokenizer, TokenizerConfig, train
from nacre.errors import CheckpointError

MARK = "\n__ggml_vocab_test__\n"


def conformance(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    """Inputs and expected ids of llama.cpp's vocabulary tests."""
    stem = folder / "tokenizers/ggml-vocab" / f"ggml-vocab-{name}.gguf"
    inputs = stem.with_suffix(".gguf.inp").read_text(encoding="utf-8").split(MARK)
    outputs = [[int(word) for word in line.split()] for line in stem.with_suffix(".gguf.out").read_text().split("\n")]
    return list(zip(inputs, outputs, strict=True))


def gguf_tokens(path: Path) -> list[str]:
    """The string array `tokenizer.ggml.tokens` of a GGUF file."""
    data = path.read_bytes()
    at = 24  # magic, version, counts of tensors and of keys
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def string(at: int) -> tuple[str, int]:
        (size,) = struct.unpack_from("<Q", data, at)
        return data[at + 8 : at + 8 + size].decode("utf-8"), at + 8 + size

    def value(kind: int, at: int) -> tuple[Any, int]:
        if kind == 8:
            return string(at)
        if kind == 9:
            inner, count = struct.unpack_from("<IQ", data, at)
            at += 12
            found = []
            for _ in range(count):
                one, at = value(inner, at)
                found.append(one)
            return found, at
        return None, at + sizes[kind]

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key, at = string(at)
        (kind,) = struct.unpack_from("<I", data, at)
        one, at = value(kind, at + 4)
        if key == "tokenizer.ggml.tokens":
            return list(one)
    raise AssertionError("no tokens")


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "folder"), [("gpt-2", "gpt2"), ("llama-spm", "llama2")])
def test_ids_are_those_of_llama_cpp(shared_data: Path, name: str, folder: str) -> None:
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / folder)
    for text, ids in conformance(shared_data, name):
        assert tokenizer.encode(text, add_special=False) == ids, repr(text)
        if name == "gpt-2":
            assert tokenizer.decode(ids) == text


@pytest.mark.shared_data
def test_vocab_txt_gives_the_ids_of_llama_cpp(shared_data: Path, tmp_path: Path) -> None:
    tokens = gguf_tokens(shared_data / "tokenizers/ggml-vocab/ggml-vocab-bert-bge.gguf")
    lines = [one[1:] if one.startswith("▁") else one if one.startswith("[") else f"##{one}" for one in tokens]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    for text, ids in conformance(shared_data, "bert-bge"):
        assert tokenizer.encode(text, add_special=False) == ids, repr(text)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("folder", "special"),
    [
        ("bge-large-zh", {"cls_id": 101, "sep_id": 102, "mask_id": 103, "pad_id": 0, "unk_id": 100}),
        ("llama2", {"bos_id": 1, "eos_id": 2, "unk_id": 0, "pad_id": None}),
        pytest.param("qwen2", {"eos_id": 151645, "pad_id": 151643, "bos_id": None}, marks=pytest.mark.slow),
        ("minimind", {"bos_id": 1, "eos_id": 2, "pad_id": 0}),
        ("gpt-neox-20b", {"eos_id": 0}),
        ("mistral-v1", {"bos_id": 1, "eos_id": 2}),
        ("mistral-v3", {"bos_id": 1, "eos_id": 2}),
        pytest.param("internlm-20b", {"bos_id": 1, "eos_id": 2}, marks=pytest.mark.slow),
        pytest.param("chatglm3", {"bos_id": 1, "eos_id": 2}, marks=pytest.mark.slow),
        ("xlnet", {"cls_id": 3, "sep_id": 4, "pad_id": 5}),
    ],
)
def test_real_folders_load_save_and_agree(shared_data: Path, tmp_path: Path, folder: str, special: dict) -> None:
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / folder)
    assert {name: getattr(tokenizer, name) for name in special} == special
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert again.encode(text) == ids
        assert max(ids) < len(tokenizer)
        if tokenizer.kind == "bpe":
            assert tokenizer.decode(ids) == text
    name = tokenizer.token(next(iter(sorted(tokenizer.special_ids))))
    assert not tokenizer.special_ids & set(tokenizer.encode(f"a {name} b", add_special=False)) - {tokenizer.unk_id}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "folder", [pytest.param("qwen2", marks=pytest.mark.slow), "bert-base-chinese", "bge-large-zh", "gpt2"]
)
def test_ids_are_those_of_transformers(shared_data: Path, tmp_path: Path, folder: str) -> None:
    transformers = pytest.importorskip("transformers")
    source = shared_data / "tokenizers" / folder
    if folder == "gpt2":
        other = transformers.GPT2Tokenizer(vocab=str(source / "encoder.json"), merges=str(source / "vocab.bpe"))
    elif folder == "qwen2":
        other = transformers.AutoTokenizer.from_pretrained(source)
    else:
        shutil.copytree(source, tmp_path / "in")
        (tmp_path / "in/tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
        )
        other = transformers.AutoTokenizer.from_pretrained(tmp_path / "in")
    tokenizer = Tokenizer.load(source)
    for text in TEXTS:
        assert other(text)["input_ids"] == tokenizer.encode(text)


@pytest.mark.shared_data
@pytest.mark.parametrize("folder", ["mistral-v1", "mistral-v3", "internlm-20b", "chatglm3"])
def test_ids_are_those_of_sentencepiece(shared_data: Path, folder: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    file = shared_data / "tokenizers" / folder / "tokenizer.model"
    other, tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(file)), Tokenizer.load(file)
    texts = [*TEXTS, *(text for text, _ in conformance(shared_data, "gpt-2"))]
    for text in texts:
        assert tokenizer.encode(text, add_special=False) == other.encode(text)


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def spiece(pieces: list[tuple[str, float, int]], kind: int, *, byte_fallback: bool = False) -> bytes:
    """A SentencePiece model file, written by hand."""
    body = b""
    for text, score, type_ in pieces:
        piece = _message(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + _number(3, type_)
        body += _message(1, piece)
    unk = next(index for index, (_, _, type_) in enumerate(pieces) if type_ == 2)
    trainer = _number(3, kind) + _number(35, int(byte_fallback)) + _number(40, unk)
    return body + _message(2, trainer) + _message(3, _message(1, b"identity"))


def pieces_of(words: list[str]) -> Iterator[tuple[str, float, int]]:
    yield from ((word, -float(rank), 1) for rank, word in enumerate(words, start=1))


def test_a_t5_model_gets_its_end_and_its_sentinels(tmp_path: Path) -> None:
    pieces = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), *pieces_of(["▁pay", "▁", "p", "a", "y", "卡"])]
    (tmp_path / "spiece.model").write_bytes(spiece(pieces, 1))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.kind == "unigram"
    assert tokenizer.encode("pay 卡") == [3, 4, 8, 1]
    assert tokenizer.decode(tokenizer.encode("pay 卡")) == "pay 卡"
    assert tokenizer.sentinel_ids[0] == len(tokenizer) - 1 == len(pieces) + 99
    assert tokenizer.encode("x</s>", add_special=False).count(1) == 0


def test_a_llama_model_gets_its_beginning_and_bytes(tmp_path: Path) -> None:
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    bytes_ = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces = [*special, *bytes_, *pieces_of(["▁p", "ay", "▁pay", "▁", "p", "a", "y"])]
    (tmp_path / "tokenizer.model").write_bytes(spiece(pieces, 2, byte_fallback=True))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("pay") == [1, 261]
    assert tokenizer.encode("卡", add_special=False) == [262, *(3 + byte for byte in "卡".encode())]
    assert tokenizer.decode(tokenizer.encode("pay 卡")) == "pay 卡"


def test_vocab_txt_honours_its_settings(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pay", "Pay", "卡", "卡片", "片"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    assert Tokenizer.load(tmp_path).encode("Pay 卡片") == [2, 5, 7, 9, 3]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenize_chinese_chars": false}')
    assert Tokenizer.load(tmp_path).encode("Pay 卡片") == [2, 6, 8, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{}", "damaged"),
        ("tokenizer.json", b'{"version": "1.0"', "damaged"),
        ("vocab.txt", b"a\nb\n", "no unknown token"),
        ("vocab.txt", b"\xff\xfe", "damaged"),
        ("tokenizer.model", b"\x0a\xff\x01abc", "damaged"),
        ("tokenizer.model", b"", "no pieces"),
        ("spiece.model", b"not a model at all", "damaged"),
        ("notes.txt", b"hello", "no tokenizer of a known format"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.remedy


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "none")


def test_declared_ids_are_held_to(tmp_path: Path) -> None:
    train(TEXTS, TokenizerConfig(algorithm="bpe", style="gpt", vocab_size=400), tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["added_tokens_decoder"] = {"7": {"content": "<|pad|>", "special": True}}
    path.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="gives"):
        Tokenizer.load(tmp_path)


def test_words_of_an_unknown_family_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CodeGenTokenizer"}')
    with pytest.raises(CheckpointError, match="CodeGenTokenizer"):
        Tokenizer.load(tmp_path)
