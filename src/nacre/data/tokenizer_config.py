"""What tokenizer to train. Light: nothing heavier than dataclasses is imported, for plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.data.tokenizer_style import STYLES, StyleName, sentinels
from nacre.errors import ConfigError

Algorithm = Literal["bpe", "wordpiece", "unigram"]


@dataclass(frozen=True)
class TokenizerConfig:
    """What to train.

    vocab_size counts everything: special tokens, sentinels, alphabet. character_coverage is the share of character
    occurrences that WordPiece and Unigram must represent by a character of their own; the rest becomes [UNK]
    (WordPiece) or bytes (Unigram). Byte-level BPE covers everything and ignores it. require_size makes a
    vocabulary smaller than asked an error instead of a reported event.
    """

    algorithm: Algorithm = "bpe"
    vocab_size: int = 8000
    style: StyleName = "gpt"
    lowercase: bool = False
    normalize: Literal["none", "nfc", "nfkc"] = "none"
    min_frequency: int = 2
    character_coverage: float = 0.9995
    max_piece_chars: int = 16
    extra_special: tuple[str, ...] = ()
    sentinels: int = 100
    require_size: bool = False

    def specials(self) -> list[str]:
        """Special tokens with the first ids, in order."""
        return [*STYLES[self.style].tokens, *self.extra_special]

    def closing(self) -> list[str]:
        """Special tokens with the last ids: T5's sentinels."""
        return sentinels(self.sentinels) if self.style == "t5" else []


def check_config(config: TokenizerConfig) -> None:
    """Raises ConfigError for choices that cannot work, before any text is read."""
    for name, allowed in (("algorithm", ("bpe", "wordpiece", "unigram")), ("style", tuple(STYLES))):
        if getattr(config, name) not in allowed:
            raise ConfigError(
                f"tokenizer {name} {getattr(config, name)!r} is unknown", remedy=f"choose one of {', '.join(allowed)}"
            )
    if config.normalize not in ("none", "nfc", "nfkc"):
        raise ConfigError(f"normalize {config.normalize!r} is unknown", remedy="choose none, nfc or nfkc")
    if not 0.9 <= config.character_coverage <= 1:
        raise ConfigError(
            f"character_coverage {config.character_coverage} is outside [0.9, 1]",
            remedy="0.9995 suits Chinese, 1.0 small alphabets",
        )
    if config.vocab_size < 1:
        raise ConfigError(f"vocab_size is {config.vocab_size}", remedy="give the number of tokens wanted, 8000 say")
    if config.min_frequency < 1 or config.max_piece_chars < 1 or config.sentinels < 0:
        raise ConfigError(
            "min_frequency and max_piece_chars must be at least 1, sentinels at least 0", remedy="correct the config"
        )
    if config.algorithm == "wordpiece" and "unk" not in STYLES[config.style].roles:
        raise ConfigError(
            f"WordPiece needs an unknown token, which style {config.style!r} has not",
            remedy="use style bert, or algorithm bpe",
        )
    if len(set(config.extra_special)) != len(config.extra_special) or "" in config.extra_special:
        raise ConfigError(f"extra_special repeats or is empty: {config.extra_special}", remedy="name each token once")
