"""The vocabulary in a GGUF header: arrays `tokenizer.ggml.{tokens,scores,token_type,merges}` and the model's word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tokenizers import assemble
from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary, byte_level, with_blanks

_PREFIX = "tokenizer.ggml."
# llama.cpp's token types; UNKNOWN and CONTROL are special, USER_DEFINED were put in by hand.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def metadata(path: Path) -> Mapping[str, Any]:
    """The key-value part of a GGUF file's header."""
    from nacre.lifecycle.audit.readers import gguf

    return gguf.read_metadata(path)


def read(metadata: Mapping[str, Any]) -> Vocabulary:
    """From the key-value part of a GGUF file. Raises CheckpointError where it holds no vocabulary or a damaged one."""
    tokens = [str(token) for token in _array(metadata, "tokens")]
    if not tokens:
        raise CheckpointError("the GGUF header holds no tokens", remedy="give the tokenizer file beside it")
    kinds = [int(kind) for kind in _array(metadata, "token_type")] or [NORMAL] * len(tokens)
    scores = [float(score) for score in _array(metadata, "scores")] or [0.0] * len(tokens)
    if len(kinds) != len(tokens) or len(scores) != len(tokens):
        template = "the GGUF header has {tokens:,} tokens, {types:,} types and {scores:,} scores"
        what = say(template, tokens=len(tokens), types=len(kinds), scores=len(scores))
        raise CheckpointError(what, remedy="copy the file again from its source")
    special = {token: i for i, token in enumerate(tokens) if kinds[i] in (UNKNOWN, CONTROL)}
    added = {token: i for i, token in enumerate(tokens) if kinds[i] == USER_DEFINED}
    ordinary = {token: i for i, token in enumerate(tokens) if token not in special and token not in added}
    model = str(metadata.get(f"{_PREFIX}model", ""))
    if model == "gpt2":
        merges = [tuple(str(merge).split(" ")) for merge in _array(metadata, "merges")]
        return assemble.bpe("bytes", byte_level, ordinary, merges, special, added)
    if model == "bert":  # a word's beginning is written with `▁`, a continuation bare
        return assemble.by_ids(
            "wordpiece", "words", {with_blanks(token): i for token, i in ordinary.items()}, special, added
        )
    if model == "t5":
        apart = special.keys() | added.keys()
        pieces = [(with_blanks(token), 0.0 if token in apart else scores[i]) for i, token in enumerate(tokens)]
        return assemble.unigram(pieces, special, added)
    if model == "llama":
        return assemble.scored_bpe([(with_blanks(t), i, scores[i]) for t, i in ordinary.items()], special, added)
    what = say("the GGUF header has a tokenizer of kind {model}", model=repr(model))
    raise CheckpointError(what, remedy="known: gpt2, llama, bert, t5")


def _array(metadata: Mapping[str, Any], name: str) -> list[Any]:
    value = metadata.get(f"{_PREFIX}{name}")
    if value is None:
        return []
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        what = say("{name} is no array", name=f"{_PREFIX}{name}")
        raise CheckpointError(what, remedy="copy the file again from its source")
    return list(value)
