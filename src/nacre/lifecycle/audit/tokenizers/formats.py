"""Tokenizer files of every format read into a `Vocabulary`: nothing is executed, sizes are bounded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.data import sentencepiece
from nacre.errors import CheckpointError
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tokenizers import assemble, gguf_arrays, ranked
from nacre.lifecycle.audit.tokenizers.vocabulary import (
    META,
    Vocabulary,
    byte_level,
    with_blanks,
    word_piece,
)

MOST_BYTES = 256 << 20  # the largest vocabularies in use are under 40 MiB
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load_vocabulary(source: Path | Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a tokenizer file, of the folder it lies in, or of the metadata of a GGUF header (a mapping).

    Raises CheckpointError for what is absent, damaged, too large or of an unknown format.
    """
    if isinstance(source, Mapping):
        return gguf_arrays.read(source)
    path = source
    if path.is_dir():
        path = _file_of(path)
    if not path.is_file():
        raise CheckpointError(say("there is no tokenizer at {file}", file=path), remedy="check the path")
    for file in (path, *_beside(path)):
        if file.stat().st_size > MOST_BYTES:
            what = say(
                "{file} has {size:,} MiB, no vocabulary is that large", file=file, size=file.stat().st_size >> 20
            )
            raise CheckpointError(what, remedy="check the file")
    reader = _reader_of(path)
    try:
        return reader(path)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
        what = say("{file} is damaged or of an unknown format: {error}", file=path, error=why)
        raise CheckpointError(what, remedy="copy it again from its source") from error


def _file_of(folder: Path) -> Path:
    names = (*READERS, "*.tiktoken", "*.gguf")
    for name in names:
        found = sorted(folder.glob(name))
        if found:
            return found[0]
    what = say("{folder} holds no tokenizer of a known format", folder=folder)
    raise CheckpointError(what, remedy=f"expected one of {', '.join(names)}")


def _reader_of(path: Path) -> Callable[[Path], Vocabulary]:
    if path.name in READERS:
        return READERS[path.name]
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    what = say("{file} is no tokenizer file of a known name", file=path)
    raise CheckpointError(what, remedy=f"known: {', '.join([*READERS, *SUFFIXES])}")


def _beside(path: Path) -> list[Path]:
    """The second file of a format that has two, and the settings."""
    names = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}
    found = [path.with_name(names[path.name])] if path.name in names else []
    return [file for file in [*found, path.with_name("tokenizer_config.json")] if file.is_file()]


def _gguf(path: Path) -> Vocabulary:
    return gguf_arrays.read(gguf_arrays.metadata(path))


def _tokenizer_json(path: Path) -> Vocabulary:
    whole = _object(path)
    model = whole["model"]
    special, added = _added(whole.get("added_tokens") or [])
    style = json.dumps([whole.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    kind = model.get("type") or ("WordPiece" if "max_input_chars_per_word" in model else "BPE")
    if kind == "Unigram":
        spell = with_blanks if META in style else _plain
        pieces = [(spell(str(text)), float(score)) for text, score in model["vocab"]]
        return assemble.unigram(pieces, special, added)
    raw = {str(token): _index(value) for token, value in model["vocab"].items()}
    taken = {*special, *added}
    ordinary = {token: index for token, index in raw.items() if token not in taken}
    if kind == "WordPiece":
        return assemble.by_ids(
            "wordpiece", "words", {word_piece(token): i for token, i in ordinary.items()}, special, added
        )
    if kind != "BPE":
        what = say("{file} holds a model of type {kind}", file=path, kind=repr(kind))
        raise CheckpointError(what, remedy="known: BPE, WordPiece, Unigram")
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    if '"ByteLevel"' in style:
        return assemble.bpe("bytes", byte_level, ordinary, merges, special, added)
    return assemble.bpe("characters", with_blanks if META in style else _plain, ordinary, merges, special, added)


def _vocabulary_and_merges(path: Path) -> Vocabulary:
    beside = path.with_name("merges.txt" if path.name == "vocab.json" else "vocab.bpe")
    if not beside.is_file():
        what = say("{file} lacks its merges: there is no {beside}", file=path, beside=beside.name)
        raise CheckpointError(what, remedy="copy both files")
    lines = beside.read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.rstrip("\r").split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    special, added = _declared(path)
    taken = {*special, *added}
    raw = {str(token): _index(value) for token, value in _object(path).items()}
    ordinary = {token: index for token, index in raw.items() if token not in taken}
    return assemble.bpe("bytes", byte_level, ordinary, merges, special, added)


def _vocab_txt(path: Path) -> Vocabulary:
    tokens = path.read_text(encoding="utf-8").split("\n")
    tokens = [token.rstrip("\r") for token in (tokens[:-1] if tokens and not tokens[-1] else tokens)]
    special = {token: index for index, token in enumerate(tokens) if token in BERT_SPECIAL}
    ids = {word_piece(token): index for index, token in enumerate(tokens) if token not in special}
    return assemble.by_ids("wordpiece", "words", ids, special, {})


def _sentencepiece(path: Path) -> Vocabulary:
    model = sentencepiece.read_model(path)
    spm = sentencepiece
    special = {text: i for i, (text, _, kind) in enumerate(model.pieces) if kind in (spm.CONTROL, spm.UNKNOWN)}
    added = {text: i for i, (text, _, kind) in enumerate(model.pieces) if kind == spm.USER_DEFINED}
    apart = (spm.CONTROL, spm.UNKNOWN, spm.USER_DEFINED)
    if model.model_type == spm.UNIGRAM:
        pieces = [(with_blanks(text), score if kind not in apart else 0.0) for text, score, kind in model.pieces]
        return assemble.unigram(pieces, special, added)
    if model.model_type != spm.BPE:
        what = say("{file} is a SentencePiece model of type {kind}", file=path, kind=model.model_type)
        raise CheckpointError(what, remedy="known: Unigram (1), BPE (2)")
    rows = [(with_blanks(text), i, score) for i, (text, score, kind) in enumerate(model.pieces) if kind not in apart]
    return assemble.scored_bpe(rows, special, added)


def _added(entries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    special = {str(one["content"]): _index(one["id"]) for one in entries if one.get("special")}
    added = {str(one["content"]): _index(one["id"]) for one in entries if not one.get("special")}
    return special, added


def _declared(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """What `tokenizer_config.json` beside a vocabulary adds."""
    settings = path.with_name("tokenizer_config.json")
    if not settings.is_file():
        return {}, {}
    entries = _object(settings).get("added_tokens_decoder") or {}
    return _added([{**entry, "id": int(index)} for index, entry in entries.items()])


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise CheckpointError(say("{file} holds no JSON object", file=path), remedy="copy it again from its source")
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise CheckpointError(
            say("{value} is no token id", value=repr(value)), remedy="copy the file again from its source"
        )
    return value


def _plain(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


# Names of files -> their reader, the most telling first.
READERS: Mapping[str, Callable[[Path], Vocabulary]] = {
    "tokenizer.json": _tokenizer_json,
    "vocab.json": _vocabulary_and_merges,
    "encoder.json": _vocabulary_and_merges,
    "tokenizer.model": _sentencepiece,
    "spiece.model": _sentencepiece,
    "sentencepiece.bpe.model": _sentencepiece,
    "vocab.txt": _vocab_txt,
}
SUFFIXES: Mapping[str, Callable[[Path], Vocabulary]] = {
    ".json": _tokenizer_json,
    ".model": _sentencepiece,
    ".tiktoken": ranked.read_tiktoken,
    ".txt": ranked.read_trie_or_words,
    ".gguf": _gguf,
}
