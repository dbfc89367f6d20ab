"""Vocabularies that are lists: tiktoken ranks (`base64 rank` a line) and RWKV's trie (`id 'text' length` a line)."""

from __future__ import annotations

import ast
import base64
import binascii
from pathlib import Path

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary, in_order, word_piece


def read_tiktoken(path: Path) -> Vocabulary:
    """Ranks are ids and the order of learning; special tokens live in the program, not in the file."""
    ids: dict[bytes, int] = {}
    notes: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            if not token.strip(b"="):
                notes.append(say("rank {rank:,} is a placeholder without bytes", rank=int(rank)))
                continue
            ids[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            what = say("{file}, line {line}: not a token and its rank", file=path, line=number)
            raise CheckpointError(what, remedy="copy the file again from its source") from error
    _require(ids, path)
    order = sorted(ids, key=lambda token: ids[token])
    return Vocabulary("bpe", "bytes", ids, in_order(order, "bytes"), knows_special=False, notes=tuple(notes))


def read_trie_or_words(path: Path) -> Vocabulary:
    """A `.txt` of any name: RWKV's trie where its first line says so, else one WordPiece token a line."""
    lines = path.read_text(encoding="utf-8").split("\n")
    first = lines[0].split(" ", 1)
    if len(first) == 2 and first[0].isdigit() and first[1][:1] in "'\"b":
        return _trie(path, lines)
    tokens = [line.rstrip("\r") for line in lines if line.rstrip("\r")]
    ids = {word_piece(token): index for index, token in enumerate(tokens)}
    _require(ids, path)
    return Vocabulary("wordpiece", "words", ids, in_order(ids, "words"), knows_special=False)


def _trie(path: Path, lines: list[str]) -> Vocabulary:
    ids: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        index, _, rest = line.partition(" ")
        try:
            token = ast.literal_eval(rest[: rest.rindex(" ")])
            ids[token if isinstance(token, bytes) else str(token).encode("utf-8")] = int(index)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            what = say("{file}, line {line}: not an id, a text and its length", file=path, line=number)
            raise CheckpointError(what, remedy="copy the file again") from error
    order = sorted(ids, key=lambda token: ids[token])
    return Vocabulary("trie", "bytes", ids, in_order(order, "bytes"), knows_special=False)


def _require(ids: dict[bytes, int], path: Path) -> None:
    if not ids:
        raise CheckpointError(say("{file} holds no tokens", file=path), remedy="copy the file again from its source")
