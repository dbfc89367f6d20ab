"""What a tokenizer does to text: bytes per token and tokens per character by language, and what its vocabulary holds.

Measured on text that the tokenizer was not trained on, beside the byte baseline (one token per UTF-8 byte).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from nacre.data.rows import is_han
from nacre.data.tokenizer import Tokenizer
from nacre.data.words import HAN

BATCH = 512
HAN_SHARE = 0.3  # of the letters: Chinese text with English names is Chinese
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_HAN_CHAR = re.compile(f"[{HAN}]")


@dataclass
class Fit:
    """How a tokenizer fits the texts of one language.

    unknown_rate: unknown tokens among all. exact_rate: texts that come back unchanged from encode and decode.
    """

    texts: int = 0
    characters: int = 0
    utf8_bytes: int = 0
    tokens: int = 0
    unknown: int = 0
    exact: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Counts and rates; the byte baseline has 1 byte per token and `byte_tokens_per_character`."""
        tokens, characters = max(1, self.tokens), max(1, self.characters)
        return {
            **asdict(self),
            "bytes_per_token": round(self.utf8_bytes / tokens, 4),
            "tokens_per_character": round(self.tokens / characters, 4),
            "byte_tokens_per_character": round(self.utf8_bytes / characters, 4),
            "unknown_rate": round(self.unknown / tokens, 6),
            "exact_rate": round(self.exact / max(1, self.texts), 6),
        }


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Fit]:
    """The fit by language (`language_of`), and over all of them under `all`."""
    fits: dict[str, Fit] = defaultdict(Fit)
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            _add(fits, tokenizer, batch)
            batch = []
    _add(fits, tokenizer, batch)
    return {name: fits[name] for name in sorted(fits)}


def _add(fits: dict[str, Fit], tokenizer: Tokenizer, texts: list[str]) -> None:
    for text, ids in zip(texts, tokenizer.encode_batch(texts, add_special=False), strict=True):
        size, unknown = len(text.encode()), ids.count(tokenizer.unk_id) if tokenizer.unk_id is not None else 0
        exact = tokenizer.decode(ids, skip_special=False) == text
        for name in (language_of(text), "all"):
            fit = fits[name]
            fit.texts += 1
            fit.characters += len(text)
            fit.utf8_bytes += size
            fit.tokens += len(ids)
            fit.unknown += unknown
            fit.exact += exact


def language_of(text: str) -> str:
    """`zh`, `latin` or `other`, by the script of most letters: no guess between languages that share a script."""
    letters = [char for char in text if char.isalpha()]
    han = sum(map(is_han, letters))
    if letters and han / len(letters) >= HAN_SHARE:
        return "zh"
    latin = sum(char.isascii() or "LATIN" in unicodedata.name(char, "") for char in letters)
    return "latin" if letters and latin / len(letters) > 0.5 else "other"


def composition(tokenizer: Tokenizer) -> dict[str, int]:
    """How many tokens of the vocabulary are special, bytes, Latin, Han, digits, symbols, of other scripts, or mixed."""
    counts: Counter[str] = Counter()
    for index in range(len(tokenizer)):
        counts[_script(tokenizer, index)] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _script(tokenizer: Tokenizer, index: int) -> str:
    spelled = tokenizer.raw.id_to_token(index)
    if spelled is None:
        return "unused"
    if index in tokenizer.special_ids:
        return "special"
    if _BYTE_PIECE.fullmatch(spelled):
        return "bytes"
    text = (
        spelled.removeprefix("##") if tokenizer.kind == "wordpiece" else tokenizer.decode([index], skip_special=False)
    )
    if "\ufffd" in text:
        return "bytes"
    kinds = {_kind(char) for char in text if not char.isspace() and char != "▁"}
    if not kinds:
        return "blank"
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _kind(char: str) -> str:
    if _HAN_CHAR.match(char):
        return "han"
    if char.isdigit():
        return "digits"
    if char.isalpha() or unicodedata.category(char).startswith("M"):
        return "latin" if char.isascii() or "LATIN" in unicodedata.name(char, "") else "other"
    return "symbols"


def report(tokenizer: Tokenizer, texts: list[str], compared: Tokenizer | None = None) -> dict[str, Any]:
    """The JSON object of `report.json`: fit on held-out `texts`, vocabulary, training, a tokenizer beside."""
    training = tokenizer.training
    found: dict[str, Any] = {
        "kind": tokenizer.kind,
        "vocabulary": len(tokenizer),
        "composition": composition(tokenizer),
        "training": None if training is None else asdict(training),
        "fit": {name: fit.to_dict() for name, fit in measure(tokenizer, texts).items()},
    }
    if compared is not None:
        found["compared"] = {
            "kind": compared.kind,
            "vocabulary": len(compared),
            "composition": composition(compared),
            "fit": {name: fit.to_dict() for name, fit in measure(compared, texts).items()},
        }
    return found
