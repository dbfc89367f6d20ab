"""Training of the Unigram language model (Kudo 2018, "Subword Regularization", section 3.2), in arrays.

The trainer of `tokenizers` adds floats in the order of a hash map, so that scores, and now and then pieces, differ
from run to run. This one orders everything. All words of one length are handled at once: `table[t, l - 1]` is the
number of the piece made of the `l` characters from position `t` on, or ABSENT.

Shapes: N characters of all distinct words, M longest piece, W words of a batch, C characters of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHRINK = 0.75  # share of the pieces that survives a round of pruning
OVERSHOOT = 1.1  # pruning by loss stops here; the last tenth goes by probability
EM_STEPS = 2
LEAST_EXPECTED = 0.5
SEEDS_PER_PIECE, LEAST_SEEDS = 12, 20_000
LONGEST_WORD = 128  # longer words are cut for training only
BATCH_CELLS = 2_000_000
ABSENT = -1


@dataclass(frozen=True)
class UnigramSizes:
    """How many pieces to keep, how long one may be, and how often a piece must occur."""

    n_pieces: int
    max_chars: int
    min_frequency: int


def train_unigram(words: Counter[str], alphabet: list[str], sizes: UnigramSizes) -> list[tuple[str, float]]:
    """Pieces with log-probabilities, likeliest first, at most `sizes.n_pieces`.

    Every character of `alphabet` is one of them. Words with a character outside it are left out: they would be
    spelled in bytes. Memory is about 6 * M bytes per character of the distinct words.
    """
    corpus = _Corpus.of(words, alphabet, sizes)
    pieces = _seed(corpus, alphabet, sizes)
    while True:
        for _ in range(EM_STEPS):
            pieces = _maximise(pieces, corpus, _expected(corpus, pieces.scores))
        if len(pieces.texts) <= sizes.n_pieces * OVERSHOOT:
            break
        before = len(pieces.texts)
        pieces = _prune(pieces, corpus, sizes)
        if len(pieces.texts) == before:
            break
    return _finish(pieces, sizes.n_pieces)


@dataclass
class _Pieces:
    """The vocabulary of a round: characters of the alphabet first, which always stay."""

    texts: list[str]
    scores: Floats
    at: Ints  # a position of the corpus where the piece stands; ABSENT for characters that no word has
    n_chars: int

    def select(self, keep: NDArray[np.bool_], corpus: _Corpus) -> _Pieces:
        renumber = np.full(len(self.texts) + 1, ABSENT, dtype=np.int32)  # the last entry is read by ABSENT
        renumber[:-1][keep] = np.arange(int(keep.sum()), dtype=np.int32)
        corpus.table = renumber[corpus.table]
        texts = [text for text, kept in zip(self.texts, keep, strict=True) if kept]
        return _Pieces(texts, self.scores[keep], self.at[keep], self.n_chars)


@dataclass
class _Corpus:
    """Distinct words, ordered by length and then by text, as one string."""

    text: str
    counts: Ints  # per word
    lengths: Ints  # per word
    left: Ints  # per character: characters up to the end of its word
    weights: Ints  # per character: the count of its word
    table: NDArray[np.int32]  # (N, M)

    @classmethod
    def of(cls, words: Counter[str], alphabet: list[str], sizes: UnigramSizes) -> _Corpus:
        known, usable = set(alphabet), Counter[str]()
        for word, count in words.items():
            if known.issuperset(word):
                for start in range(0, len(word), LONGEST_WORD):
                    usable[word[start : start + LONGEST_WORD]] += count
        ordered = sorted(usable, key=lambda word: (len(word), word))
        counts = np.array([usable[word] for word in ordered], dtype=np.int64)
        lengths = np.array([len(word) for word in ordered], dtype=np.int64)
        ends = np.repeat(np.cumsum(lengths), lengths)
        left = ends - np.arange(int(lengths.sum()))
        table = np.full((len(left), min(sizes.max_chars, LONGEST_WORD)), ABSENT, dtype=np.int32)
        return cls("".join(ordered), counts, lengths, left, np.repeat(counts, lengths), table)

    def batches(self) -> Iterator[tuple[NDArray[np.int32], Ints]]:
        """Words of equal length: their part of the table as (W, C, M), and their counts (W,)."""
        longest = self.table.shape[1]
        sizes, firsts = np.unique(self.lengths, return_index=True)
        row = 0
        for size, first, stop in zip(sizes, firsts, [*firsts, len(self.lengths)][1:], strict=True):
            step = max(1, BATCH_CELLS // int(size * longest))
            for start in range(int(first), int(stop), step):
                counts = self.counts[start : min(start + step, int(stop))]
                block = self.table[row : row + len(counts) * int(size)]
                row += len(block)
                yield block.reshape(len(counts), int(size), longest), counts


def _seed(corpus: _Corpus, alphabet: list[str], sizes: UnigramSizes) -> _Pieces:
    """The alphabet, and the substrings that cover most text, by count times length.

    Substrings are numbered length by length: two are equal when their beginnings have one number and their last
    characters are equal. One that is always followed by the same character is left to its extension.
    """
    index = {char: number for number, char in enumerate(alphabet)}
    codes = np.array([index[char] for char in corpus.text], dtype=np.int64)
    at = np.full(len(alphabet), ABSENT, dtype=np.int64)
    at[codes[::-1]] = np.arange(len(codes))[::-1]
    corpus.table[:, 0] = codes
    counted = np.bincount(codes, weights=corpus.weights, minlength=len(alphabet)).astype(np.float64)
    floor = max(2, sizes.min_frequency)
    numbers, alive = codes, np.arange(len(codes))
    levels: list[tuple[int, Ints, Ints, Floats]] = []  # length, positions, number at each position, count of a number
    for length in range(2, corpus.table.shape[1] + 1):
        inside = corpus.left[alive] >= length
        alive, parents = alive[inside], numbers[inside]
        if not len(alive):
            break
        keys = parents * len(alphabet) + codes[alive + length - 1]
        _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
        counts = np.bincount(numbers, weights=corpus.weights[alive])
        if levels:  # an extension as frequent as its beginning replaces it
            best = np.zeros(len(levels[-1][3]))
            np.maximum.at(best, parents[first], counts)
            levels[-1][3][best >= levels[-1][3]] = 0
        frequent = counts[numbers] >= floor
        alive, numbers = alive[frequent], numbers[frequent]
        levels.append((length, alive, numbers, np.where(counts >= floor, counts, 0)))
    return _rank(corpus, _Pieces(list(alphabet), counted, at, len(alphabet)), levels, sizes)


def _rank(
    corpus: _Corpus, chars: _Pieces, levels: list[tuple[int, Ints, Ints, Floats]], sizes: UnigramSizes
) -> _Pieces:
    """Takes the best substrings of all lengths as pieces, and enters them into the table."""
    found: list[tuple[float, str, int, int, int]] = []
    for level, (length, positions, numbers, counts) in enumerate(levels):
        unique, first = np.unique(numbers, return_index=True)
        for number, place in zip(unique.tolist(), positions[first].tolist(), strict=True):
            if counts[number] > 0:
                found.append((-counts[number] * length, corpus.text[place : place + length], place, level, number))
    found.sort()
    found = found[: max(LEAST_SEEDS, SEEDS_PER_PIECE * sizes.n_pieces)]
    given = [np.full(len(counts), ABSENT, dtype=np.int32) for *_, counts in levels]
    for offset, (_, _, _, level, number) in enumerate(found):
        given[level][number] = chars.n_chars + offset
    for (length, positions, numbers, _), ids in zip(levels, given, strict=True):
        corpus.table[positions, length - 1] = ids[numbers]
    weights = np.concatenate([np.maximum(chars.scores, LEAST_EXPECTED), [-score for score, *_ in found]])
    places = np.array([place for _, _, place, _, _ in found], dtype=np.int64)
    return _Pieces(
        chars.texts + [text for _, text, *_ in found],
        np.log(weights / weights.sum()),
        np.concatenate([chars.at, places]),
        chars.n_chars,
    )


def _lattice(block: NDArray[np.int32], scores: Floats) -> Floats:
    """Scores of the block's pieces, (W, C, M); minus infinity where there is none."""
    return np.append(scores, -np.inf)[block]


def _expected(corpus: _Corpus, scores: Floats) -> Floats:
    """How often each piece is expected in the corpus, over all segmentations (forward-backward)."""
    expected = np.zeros(len(scores) + 1)
    for block, counts in corpus.batches():
        n_words, size, longest = block.shape
        lattice = _lattice(block, scores)
        forward = np.full((n_words, size + 1), -np.inf)
        backward = np.full((n_words, size + longest), -np.inf)  # room behind the end, never reached
        forward[:, 0] = backward[:, size] = 0.0
        for end in range(1, size + 1):
            lengths = np.arange(min(longest, end))
            forward[:, end] = _logsumexp(lattice[:, end - 1 - lengths, lengths] + forward[:, end - 1 - lengths])
        for begin in range(size - 1, -1, -1):
            backward[:, begin] = _logsumexp(lattice[:, begin] + backward[:, begin + 1 : begin + 1 + longest])
        after = np.lib.stride_tricks.sliding_window_view(backward[:, 1:], longest, axis=1)[:, :size]
        posterior = np.exp(forward[:, :size, None] + lattice + after - forward[:, -1][:, None, None])
        posterior *= counts[:, None, None]
        expected += np.bincount(block.ravel() + 1, weights=posterior.ravel(), minlength=len(expected))
    return expected[1:]


def _logsumexp(values: Floats) -> Floats:
    """Over the last axis of (W, L); every row has one finite value."""
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))


def _maximise(pieces: _Pieces, corpus: _Corpus, expected: Floats) -> _Pieces:
    """Scores from expected counts, with the digamma of variational Bayes, which starves rare pieces; these go."""
    is_char = np.arange(len(expected)) < pieces.n_chars
    expected = np.where(is_char, np.maximum(expected, LEAST_EXPECTED), expected)
    keep = expected >= LEAST_EXPECTED
    kept = pieces.select(keep, corpus)
    amounts = expected[keep]
    kept.scores = _digamma(amounts) - _digamma(np.array([amounts.sum()]))
    return kept


def _digamma(x: Floats) -> Floats:
    """By recurrence up to 7, then the asymptotic series (Abramowitz & Stegun 6.3.5 and 6.3.18)."""
    x, result = x.copy(), np.zeros_like(x)
    while (small := x < 7).any():
        result[small] -= 1 / x[small]
        x[small] += 1
    square = 1 / (x * x)
    return np.asarray(result + np.log(x) - 0.5 / x - square * (1 / 12 - square * (1 / 120 - square / 252)))


def _viterbi(block: NDArray[np.int32], lattice: Floats) -> Iterator[Ints]:
    """The best segmentation of each word, from its end: piece numbers (W,) a step, ABSENT once a word is done."""
    n_words, size, longest = block.shape
    best = np.full((n_words, size + 1), -np.inf)
    best[:, 0] = 0.0
    taken = np.zeros((n_words, size + 1), dtype=np.int64)
    rows = np.arange(n_words)
    for end in range(1, size + 1):
        lengths = np.arange(min(longest, end))
        ways = lattice[:, end - 1 - lengths, lengths] + best[:, end - 1 - lengths]
        taken[:, end] = ways.argmax(axis=1)
        best[:, end] = ways[rows, taken[:, end]]
    at = np.full(n_words, size)
    while (at > 0).any():
        length = taken[rows, at]
        begin = np.maximum(at - 1 - length, 0)
        yield np.where(at > 0, block[rows, begin, length], ABSENT).astype(np.int64)
        at = np.where(at > 0, begin, 0)


def _prune(pieces: _Pieces, corpus: _Corpus, sizes: UnigramSizes) -> _Pieces:
    """Drops the pieces whose loss costs the corpus least, each replaced by its own best other segmentation."""
    frequency = np.zeros(len(pieces.texts) + 1)
    for block, counts in corpus.batches():
        for step in _viterbi(block, _lattice(block, pieces.scores)):
            frequency += np.bincount(step + 1, weights=counts, minlength=len(frequency))
    frequency = frequency[1:]
    loss = _loss(pieces, corpus, frequency)
    loss[: pieces.n_chars] = np.inf
    size = max(int(sizes.n_pieces * OVERSHOOT), int(len(pieces.texts) * SHRINK))
    order = sorted(range(len(pieces.texts)), key=lambda number: (-loss[number], number))
    keep = np.zeros(len(pieces.texts), dtype=np.bool_)
    keep[order[:size]] = True
    keep &= loss > -np.inf
    return pieces.select(keep, corpus)


def _loss(pieces: _Pieces, corpus: _Corpus, frequency: Floats) -> Floats:
    """Log-likelihood lost with each piece; minus infinity for one that no best segmentation uses."""
    loss = np.full(len(frequency), -np.inf)
    total = frequency.sum()
    lengths = np.array([len(text) for text in pieces.texts])
    longest = corpus.table.shape[1]
    for length in range(2, int(lengths.max()) + 1):
        group = np.flatnonzero((lengths == length) & (frequency > 0))
        for start in range(0, len(group), max(1, BATCH_CELLS // (length * longest))):
            part = group[start : start + max(1, BATCH_CELLS // (length * longest))]
            block = corpus.table[pieces.at[part][:, None] + np.arange(length)]
            outside = np.arange(length)[:, None] + np.arange(longest)[None, :] >= length
            block[:, outside] = ABSENT
            block[:, 0, length - 1] = ABSENT  # the piece itself
            moved = frequency[part]
            log_alternative = np.zeros(len(part))
            n_parts = np.zeros(len(part))
            for step in _viterbi(block, _lattice(block, pieces.scores)):
                used = step != ABSENT
                log_alternative += np.where(used, np.log(np.where(used, frequency[step] + moved, 1.0)), 0.0)
                n_parts += used
            log_alternative -= n_parts * np.log(total + moved * (n_parts - 1))
            loss[part] = moved * (np.log(moved / total) - log_alternative)
    return loss


def _finish(pieces: _Pieces, n_pieces: int) -> list[tuple[str, float]]:
    """The alphabet and the likeliest others. Scores are rounded: the last digits belong to the machine's `exp`."""
    ranked = sorted(
        zip(pieces.texts[pieces.n_chars :], pieces.scores[pieces.n_chars :].tolist(), strict=True),
        key=lambda piece: (-round(piece[1], 6), piece[0]),
    )
    chars = zip(pieces.texts[: pieces.n_chars], pieces.scores[: pieces.n_chars].tolist(), strict=True)
    chosen = [*chars, *ranked[: max(0, n_pieces - pieces.n_chars)]]
    return sorted(((text, round(score, 6)) for text, score in chosen), key=lambda piece: (-piece[1], piece[0]))
