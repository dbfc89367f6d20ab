"""A tokenizer with only the tokens that some texts need: embeddings are most of a small encoder."""

from __future__ import annotations

import json
from collections.abc import Iterable

import tokenizers

from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError


def trimmed(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[Tokenizer, list[int]]:
    """The tokenizer with the tokens of `texts`, every special token, and the single characters of these tokens, alone
    and inside a word; and the numbers that its tokens had, in order.

    `texts` are cut as before. A word of other texts whose token is gone is spelled in smaller pieces, and is unknown
    where it has a character that no text had. WordPiece only: ConfigError for another algorithm.
    """
    described = json.loads(tokenizer.raw.to_str())
    model = described["model"]
    if tokenizer.kind != "wordpiece":
        raise ConfigError(
            f"a tokenizer of the kind {tokenizer.kind} cannot be trimmed",
            remedy="keep its vocabulary, or use WordPiece",
        )
    vocab: dict[str, int] = model["vocab"]
    mark = model["continuing_subword_prefix"]
    used = {index for text in texts for index in tokenizer.encode(text, add_special=False)}
    letters = {letter for index in used for letter in tokenizer.token(index).removeprefix(mark)}
    kept = {token for token, index in vocab.items() if index in used or token.removeprefix(mark) in letters}
    kept |= {one["content"] for one in described["added_tokens"]} | {model["unk_token"]}
    beyond = [one["content"] for one in described["added_tokens"] if one["content"] not in vocab]
    if beyond:
        raise ConfigError(
            f"{len(beyond)} tokens were added to the vocabulary ({beyond[0]!r} ...)", remedy="trim before adding tokens"
        )
    old = sorted(vocab[token] for token in kept)
    place = {index: number for number, index in enumerate(old)}
    model["vocab"] = {
        token: place[index] for token, index in sorted(vocab.items(), key=lambda one: one[1]) if token in kept
    }
    for added in described["added_tokens"]:
        added["id"] = model["vocab"][added["content"]]
    _renumber(described.get("post_processor"), model["vocab"])
    settings = {name: value for name, value in tokenizer.settings.items() if name != "added_tokens_decoder"}
    raw = tokenizers.Tokenizer.from_str(json.dumps(described, ensure_ascii=False))
    return Tokenizer(raw, tokenizer.roles, settings), old


def _renumber(part: object, vocab: dict[str, int]) -> None:
    """The numbers of special tokens that a post-processor holds."""
    if not isinstance(part, dict):
        return
    for special in part.get("special_tokens", {}).values() if isinstance(part.get("special_tokens"), dict) else ():
        special["ids"] = [vocab[token] for token in special["tokens"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            part[name][1] = vocab[part[name][0]]
    for other in part.get("processors", ()):
        _renumber(other, vocab)
