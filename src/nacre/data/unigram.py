"""Training of the Unigram language model (Kudo 2018, "Subword Regularization", section 3.2)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


@dataclass(frozen=True)
class UnigramSizes:
    """How many pieces to keep, how long one may be, and how often a piece must occur."""

    n_pieces: int
    max_chars: int
    min_frequency: int


def train_unigram(words: Counter[str], alphabet: list[str], sizes: UnigramSizes) -> list[tuple[str, float]]:
    """Pieces with log-probabilities, best first; every character of `alphabet` is one of them."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\x00")
    trainer = trainers.UnigramTrainer(
        vocab_size=sizes.n_pieces + 1,
        special_tokens=["\x00"],
        unk_token="\x00",
        initial_alphabet=alphabet,
        max_piece_length=sizes.max_chars,
        show_progress=False,
    )
    known = set(alphabet)
    raw.train_from_iterator(
        ("\x00".join([word] * count) for word, count in sorted(words.items()) if known.issuperset(word)), trainer
    )
    import json

    vocab = json.loads(raw.to_str())["model"]["vocab"][1:]
    return sorted(((p, round(s, 6)) for p, s in vocab), key=lambda item: (-item[1], item[0]))
