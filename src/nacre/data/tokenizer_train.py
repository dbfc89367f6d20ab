"""Training a tokenizer: byte-level BPE, WordPiece or Unigram, the same bytes from the same texts every time.

The trainers of `tokenizers` walk hash maps in random order; for BPE that does not show, for WordPiece it renames
and reorders tokens from run to run. Here words are counted and ordered first, and what reaches the library
has no order left to lose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from nacre.data.tokenizer_config import TokenizerConfig, check_config
from nacre.data.tokenizer_style import STYLES, Style
from nacre.data.unigram import UnigramSizes, train_unigram
from nacre.errors import ConfigError, DataError

# Words of Unigram: a run of Han, of other letters, up to three digits, a run of symbols, or white space; a blank
# before a word belongs to it. Han is apart so that no piece spans two scripts (Kudo & Richardson 2018, section 3.2,
# do the same by script).
UNIGRAM_WORDS = (
    r" ?\p{Han}+| ?(?:(?!\p{Han})[\p{L}\p{M}'’])+| ?(?:(?!\p{Han})\p{N}){1,3}|"
    r" ?[^\s\p{L}\p{M}\p{N}\p{Han}]+|\s+(?!\S)|\s"
)
FIRST_PRIVATE = 0xF0000  # supplementary private use: BertNormalizer removes these characters, so none is in a text


@dataclass(frozen=True)
class Trained:
    """A trained library tokenizer with what happened on the way; `dropped_chars` lost their place to coverage."""

    raw: Tokenizer
    asked: int
    obtained: int
    dropped_chars: int
    n_texts: int
    n_chars: int


def build(texts: Iterable[str], config: TokenizerConfig) -> Trained:
    """Trains on `texts`. Raises DataError on empty data or a size that `require_size` demands, ConfigError else."""
    check_config(config)
    feed = _Feed(texts)
    builder = {"bpe": _byte_bpe, "wordpiece": _wordpiece, "unigram": _unigram}[config.algorithm]
    raw, dropped = builder(feed, config)
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _all_specials(config)])
    frame(raw, STYLES[config.style])
    obtained = raw.get_vocab_size(with_added_tokens=True)
    if obtained < config.vocab_size and config.require_size:
        raise DataError(
            f"the data supports {obtained:,} tokens, the config demands {config.vocab_size:,}",
            remedy=f"set vocab_size to {obtained} or less, lower min_frequency, add text, or drop require_size",
        )
    return Trained(raw, config.vocab_size, obtained, dropped, feed.n_texts, feed.n_chars)


def frame(raw: Tokenizer, style: Style) -> None:
    """Sets the post-processor that puts the style's special tokens around a text or a pair."""
    if style.single is None or style.pair is None:
        return
    used = {word.rpartition(":")[0] for word in f"{style.single} {style.pair}".split() if not word.startswith("$")}
    raw.post_processor = processors.TemplateProcessing(
        single=style.single, pair=style.pair, special_tokens=[(token, raw.token_to_id(token)) for token in sorted(used)]
    )


class _Feed:
    """Passes texts on and counts them; an empty feed is an error once it is exhausted."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.n_texts = self.n_chars = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.n_texts += 1
            self.n_chars += len(text)
            yield text
        if not self.n_chars:
            raise DataError("there is no text to train a tokenizer on", remedy="check the input's rows and field name")


def _all_specials(config: TokenizerConfig) -> list[str]:
    return config.specials() + config.closing()


def _byte_bpe(feed: _Feed, config: TokenizerConfig) -> tuple[Tokenizer, int]:
    """Byte-level BPE (Radford et al. 2019, section 2.2): every text round-trips, nothing is unknown."""
    raw = Tokenizer(models.BPE())
    raw.normalizer = _normalizer(config)
    # Offsets keep the blank before a word: windows must cover every character.
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = config.vocab_size - len(config.closing())
    _require_room(size, len(alphabet) + len(config.specials()), config)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=config.min_frequency,
        special_tokens=config.specials(),
        initial_alphabet=alphabet,
        max_token_length=None,
        show_progress=False,
    )
    raw.train_from_iterator(iter(feed), trainer)
    return raw, 0


def _wordpiece(feed: _Feed, config: TokenizerConfig) -> tuple[Tokenizer, int]:
    """WordPiece as BERT ships it (Devlin et al. 2019, section 3); merges chosen by frequency, as in `tokenizers`.

    The library's own trainer numbers `##` pieces in hash order. Here a continuing character is mapped to a private
    code point, plain BPE is trained on the mapped words, and its vocabulary is mapped back.
    """
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=config.lowercase
    )
    extra = _normalizer(config, lowercase=False)
    shape = Tokenizer(models.WordPiece(unk_token=STYLES[config.style].roles["unk"]))
    shape.normalizer = normalizers.Sequence([extra, normalizer]) if extra is not None else normalizer
    shape.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = count_words(feed, shape)
    kept, dropped = cover(words, config.character_coverage)
    kept = _with_ascii(kept, shape)
    follows = [char for char in kept if len(_split(shape, "a" + char)) == 1]
    room = config.vocab_size - len(config.closing())
    _require_room(room, len(kept) + len(follows) + len(config.specials()), config)
    mapped = {char: chr(FIRST_PRIVATE + index) for index, char in enumerate(follows)}
    table = str.maketrans(mapped)
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=room,
        min_frequency=config.min_frequency,
        special_tokens=config.specials(),
        initial_alphabet=[*kept, *mapped.values()],
        show_progress=False,
    )
    known = set(kept)
    usable = {word[0] + word[1:].translate(table): n for word, n in words.items() if known.issuperset(word)}
    plain.train_from_iterator(_repeat(usable), trainer)
    back = str.maketrans({code: char for char, code in mapped.items()})
    starts = set(mapped.values())
    vocab = {
        ("##" + piece.translate(back) if piece[0] in starts else piece.translate(back)): index
        for piece, index in plain.get_vocab().items()
    }
    shape.model = models.WordPiece(vocab, unk_token=STYLES[config.style].roles["unk"], max_input_chars_per_word=100)
    shape.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return shape, dropped


def _unigram(feed: _Feed, config: TokenizerConfig) -> tuple[Tokenizer, int]:
    """Unigram language model (Kudo 2018, section 3.2) with byte fallback: every text round-trips.

    Blanks stay blanks, unlike SentencePiece's U+2581, which an original U+2581 could not be told from.
    """
    raw = Tokenizer(models.Unigram())
    raw.normalizer = _normalizer(config)
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(UNIGRAM_WORDS), "isolated")
    words = count_words(feed, raw)
    kept, dropped = cover(words, config.character_coverage)
    alphabet = _with_ascii(kept, raw)
    fixed = len(config.specials()) + 256
    room = config.vocab_size - len(config.closing()) - fixed
    _require_room(room, len(alphabet), config, fixed)
    sizes = UnigramSizes(room, config.max_piece_chars, config.min_frequency)
    pieces = train_unigram(words, alphabet, sizes)
    raw.model = models.Unigram(_with_bytes(pieces, config), _unk_index(config), True)
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return raw, dropped


def _with_bytes(pieces: list[tuple[str, float]], config: TokenizerConfig) -> list[tuple[str, float]]:
    """Specials, 256 bytes, pieces. A literal `<0x41>` in a text stays text: the words above cut it at its marks."""
    lowest = min(score for _, score in pieces)
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    return [(token, lowest) for token in [*config.specials(), *byte_pieces]] + pieces


def _unk_index(config: TokenizerConfig) -> int:
    """Unigram needs an index for what it does not know; with byte fallback its token is never emitted."""
    unk = STYLES[config.style].roles.get("unk")
    return config.specials().index(unk) if unk else 0


def _normalizer(config: TokenizerConfig, *, lowercase: bool | None = None) -> normalizers.Normalizer | None:
    parts: list[normalizers.Normalizer] = []
    if config.normalize != "none":
        parts.append(normalizers.NFC() if config.normalize == "nfc" else normalizers.NFKC())
    if config.lowercase if lowercase is None else lowercase:
        parts.append(normalizers.Lowercase())
    return normalizers.Sequence(parts) if parts else None


def count_words(texts: Iterable[str], shape: Tokenizer) -> Counter[str]:
    """How often each word occurs, as the tokenizer's normalizer and pre-tokenizer cut them."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(_split(shape, text))
    return words


def _split(shape: Tokenizer, text: str) -> list[str]:
    normalizer, cutter = shape.normalizer, shape.pre_tokenizer
    clean = normalizer.normalize_str(text) if normalizer is not None else text
    return [word for word, _ in cutter.pre_tokenize_str(clean)] if cutter is not None else [clean]


def cover(words: Counter[str], coverage: float) -> tuple[list[str], int]:
    """The most frequent characters that make up `coverage` of all occurrences, sorted; and how many were left out."""
    chars: Counter[str] = Counter()
    for word, count in words.items():
        for char in word:
            chars[char] += count
    target, seen, kept = coverage * chars.total(), 0, []
    for char, count in sorted(chars.items(), key=lambda item: (-item[1], item[0])):
        if seen >= target:
            break
        kept.append(char)
        seen += count
    return sorted(kept), len(chars) - len(kept)


def _with_ascii(kept: list[str], shape: Tokenizer) -> list[str]:
    """Printable ASCII, as the normalizer leaves it, is always in the alphabet: digits are never unknown."""
    ascii_words = _split(shape, "".join(chr(code) for code in range(0x20, 0x7F)))
    return sorted({*kept, *"".join(ascii_words)})


def _require_room(room: int, needed: int, config: TokenizerConfig, fixed: int = 0) -> None:
    if room < needed:
        least = needed + fixed + len(config.closing())
        raise ConfigError(
            f"vocab_size {config.vocab_size:,} has no room for the special tokens and the alphabet: {least:,} tokens",
            remedy=f"set vocab_size to {least} or more, or lower character_coverage",
        )


def _repeat(words: dict[str, int]) -> Iterator[str]:
    """Each word as often as it occurs, a thousand to a line at most."""
    for word, count in sorted(words.items()):
        for start in range(0, count, 1000):
            yield " ".join([word] * min(1000, count - start))
