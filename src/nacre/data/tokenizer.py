"""Tokenizers: trained here or brought along, one small surface over the `tokenizers` library.

On disk a tokenizer is what Hugging Face ships: `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from nacre.data.tokenizer_config import Algorithm, TokenizerConfig, check_config
from nacre.data.tokenizer_files import read_folder, write_folder
from nacre.data.tokenizer_style import STYLES
from nacre.data.tokenizer_train import Trained, build
from nacre.errors import DataError
from nacre.progress import Progress, Silent

__all__ = ["Algorithm", "Pair", "Spans", "Tokenizer", "TokenizerConfig", "check_config", "train"]


class Pair(NamedTuple):
    """Two texts in one sequence: ids, and for each the number of the text it belongs to."""

    ids: list[int]
    token_types: list[int]


class Spans(NamedTuple):
    """Ids of a text with the characters [start, end) that each stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True)
class Training:
    """What training did: a size below the asked one, and characters left to [UNK] or bytes, are events to report."""

    asked: int
    obtained: int
    dropped_chars: int
    n_texts: int
    n_chars: int


def train(
    texts: Iterable[str], config: TokenizerConfig, folder: Path, *, progress: Progress | None = None
) -> Tokenizer:
    """Trains on `texts`, writes the tokenizer into `folder` and returns it. The same texts give the same bytes.

    A vocabulary smaller than asked is noted on `progress` as `tokenizer.smaller_than_asked`. Raises DataError on
    empty data or where `require_size` cannot be met, ConfigError for choices that cannot work.
    """
    trained: Trained = build(texts, config)
    style = STYLES[config.style]
    names = ["input_ids", *(["token_type_ids"] if style.uses_token_types else []), "attention_mask"]
    tokenizer = Tokenizer(trained.raw, style.roles, {"model_input_names": names})
    tokenizer.training = Training(
        trained.asked, trained.obtained, trained.dropped_chars, trained.n_texts, trained.n_chars
    )
    if trained.obtained < trained.asked:
        (progress or Silent()).note("tokenizer.smaller_than_asked", asked=trained.asked, obtained=trained.obtained)
    tokenizer.save(folder)
    return tokenizer


class Tokenizer:
    """Text to ids and back.

    Text of the user never becomes a control token: `[MASK]` or `</s>` typed in a text is encoded by its characters,
    unless `allow_special=True` says that the text is a rendered template (trap 16).
    """

    def __init__(
        self, raw: tokenizers.Tokenizer, roles: Mapping[str, str], settings: Mapping[str, Any] | None = None
    ) -> None:
        raw.no_truncation()
        raw.no_padding()
        self.raw = raw
        self.roles = {role: token for role, token in roles.items() if raw.token_to_id(token) is not None}
        self.settings = dict(settings or {})
        self.training: Training | None = None

    # --- files

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Reads a folder (or its one file) as Hugging Face ships it.

        Takes tokenizer.json; vocab.txt; vocab.json with merges.txt (or GPT-2's encoder.json with vocab.bpe);
        spiece.model or tokenizer.model. Raises CheckpointError where none is found or one is damaged.
        """
        raw, roles, settings = read_folder(Path(folder))
        return cls(raw, roles, settings)

    def save(self, folder: str | Path) -> None:
        """Writes the three files; `transformers.AutoTokenizer.from_pretrained(folder)` gives the same ids."""
        write_folder(Path(folder), self.raw, self.roles, self.settings)

    # --- text to ids

    def encode(
        self, text: str, add_special: bool = True, max_length: int | None = None, *, allow_special: bool = False
    ) -> list[int]:
        """Ids of `text`. `max_length` cuts the end of the text, never the special tokens around it."""
        engine = self._engine(allow_special)
        if max_length is None:
            return list(engine.encode(_checked(text), add_special_tokens=add_special).ids)
        bare = engine.encode(_checked(text), add_special_tokens=False)
        if add_special:
            bare.truncate(self._room(max_length, pair=False))
            return list(engine.post_process(bare, None, True).ids)
        return list(bare.ids[:max_length])

    def encode_pair(
        self, first: str, second: str, max_length: int | None = None, *, allow_special: bool = False
    ) -> Pair:
        """Both texts framed as one sequence. `max_length` shortens the longer text first, token by token."""
        engine = self._engine(allow_special)
        a = engine.encode(_checked(first), add_special_tokens=False)
        b = engine.encode(_checked(second), add_special_tokens=False)
        if max_length is not None:
            n_a, n_b = _fit(len(a), len(b), self._room(max_length, pair=True))
            a.truncate(n_a)
            b.truncate(n_b)
        both = engine.post_process(a, b, True)
        return Pair(list(both.ids), list(both.type_ids))

    def encode_batch(
        self,
        texts: Sequence[str],
        add_special: bool = True,
        max_length: int | None = None,
        *,
        allow_special: bool = False,
    ) -> list[list[int]]:
        """`encode` of each text, in parallel inside the library."""
        if max_length is not None:
            return [self.encode(text, add_special, max_length, allow_special=allow_special) for text in texts]
        engine = self._engine(allow_special)
        checked = [_checked(text) for text in texts]
        return [list(one.ids) for one in engine.encode_batch_fast(checked, add_special_tokens=add_special)]

    def spans(self, text: str, *, allow_special: bool = False) -> Spans:
        """Ids without special tokens, each with its characters [start, end) of `text`.

        Tokens that share a character (its bytes) have the same span. Normalisation may leave characters without
        a token; `window.py` covers those too.
        """
        encoding = self._engine(allow_special).encode(_checked(text), add_special_tokens=False)
        return Spans(list(encoding.ids), [(int(start), int(end)) for start, end in encoding.offsets])

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The spans of `encode(text, add_special=False)`."""
        return self.spans(text).offsets

    def frame(self, ids: Sequence[int]) -> list[int]:
        """`ids` with the special tokens that `encode` puts around a text."""
        before, after = self._around
        return [*before, *ids, *after]

    # --- ids to text

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of `ids`. Exact for byte-level BPE and Unigram; WordPiece loses blanks, and case where it lowers it."""
        # Left out by id: the library keeps a special token that is declared `normalized`, as Llama 2 does.
        kept = [index for index in ids if index not in self.special_ids] if skip_special else list(ids)
        return self.raw.decode(kept, skip_special_tokens=False)

    def token(self, index: int) -> str:
        """The vocabulary's spelling of an id. Raises DataError for an id outside the vocabulary."""
        token = self.raw.id_to_token(index)
        if token is None:
            raise DataError(
                f"id {index} is not in the vocabulary of {len(self):,} tokens",
                remedy="use the tokenizer that the ids were made with",
            )
        return token

    def id_of(self, token: str) -> int | None:
        """The id of a token by its spelling, special or not; None where there is none."""
        return self.raw.token_to_id(token)

    def __len__(self) -> int:
        """Rows that an embedding needs: the highest id plus one, added tokens included (trap 17)."""
        return self._size

    @cached_property
    def _size(self) -> int:
        return max(self.raw.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    # --- special tokens

    @property
    def kind(self) -> str:
        """`bpe`, `wordpiece`, `unigram` or `wordlevel`."""
        return type(self.raw.model).__name__.lower()

    @property
    def pad_id(self) -> int | None:
        return self._role("pad")

    @property
    def unk_id(self) -> int | None:
        return self._role("unk")

    @property
    def bos_id(self) -> int | None:
        return self._role("bos")

    @property
    def eos_id(self) -> int | None:
        return self._role("eos")

    @property
    def cls_id(self) -> int | None:
        return self._role("cls")

    @property
    def sep_id(self) -> int | None:
        return self._role("sep")

    @property
    def mask_id(self) -> int | None:
        return self._role("mask")

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Every id that stands for control, never for text: masking and scoring leave these alone."""
        added = self.raw.get_added_tokens_decoder()
        ids = {index for index, token in added.items() if token.special}
        return frozenset(ids | {index for role in self.roles if (index := self._role(role)) is not None})

    @cached_property
    def sentinel_ids(self) -> list[int]:
        """Ids of `<extra_id_0>`, `<extra_id_1>`, ... in that order; empty where the vocabulary has none."""
        found: list[int] = []
        while (index := self.raw.token_to_id(f"<extra_id_{len(found)}>")) is not None:
            found.append(index)
        return found

    def _role(self, role: str) -> int | None:
        token = self.roles.get(role)
        return None if token is None else self.raw.token_to_id(token)

    # --- inside

    def _engine(self, allow_special: bool) -> tokenizers.Tokenizer:
        return self.raw if allow_special else self._literal

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """A copy for which special tokens are mere text.

        Unigram finds any piece of its vocabulary in a text, `</s>` as well: there the copy's special pieces get
        names that no text contains, with the same ids.
        """
        tree = json.loads(self.raw.to_str())
        if tree["model"]["type"] == "Unigram":
            special = {token["content"] for token in tree["added_tokens"] if token["special"]}
            for token in tree["added_tokens"]:
                if token["content"] in special:
                    token["content"] = _unwritable(token["content"])
            for piece in tree["model"]["vocab"]:
                if piece[0] in special:
                    piece[0] = _unwritable(piece[0])
        literal = tokenizers.Tokenizer.from_str(json.dumps(tree))
        literal.encode_special_tokens = True
        return literal

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """Special ids before and after a text, read off one encoding."""
        encoding = self.raw.encode("a", add_special_tokens=True)
        mask = list(encoding.special_tokens_mask)
        first = mask.index(0) if 0 in mask else len(mask)
        last = len(mask) - mask[::-1].index(0) if 0 in mask else len(mask)
        return list(encoding.ids[:first]), list(encoding.ids[last:])

    def _room(self, max_length: int, *, pair: bool) -> int:
        framing = self.raw.num_special_tokens_to_add(pair)
        if max_length <= framing:
            raise DataError(
                f"max_length {max_length} leaves no room for text beside {framing} special tokens",
                remedy="raise max_length",
            )
        return max_length - framing


def _unwritable(token: str) -> str:
    return f" \uffff{token}\uffff "


def _fit(n_a: int, n_b: int, room: int) -> tuple[int, int]:
    """Lengths after removing tokens from the longer text, one by one, until both fit."""
    if n_a + n_b <= room:
        return n_a, n_b
    half = room // 2
    if n_a <= half:
        return n_a, room - n_a
    if n_b <= half:
        return room - n_b, n_b
    return room - half, half


_SURROGATE = re.compile("[\ud800-\udfff]")


def _checked(text: str) -> str:
    if bad := _SURROGATE.search(text):
        raise DataError(
            f"the text has a lone surrogate U+{ord(bad.group()):04X} at character {bad.start()}",
            remedy="decode the file with errors='replace', or clean the text first",
        )
    return text
