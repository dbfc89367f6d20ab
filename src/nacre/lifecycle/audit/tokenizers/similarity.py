"""What two vocabularies share, as numbers: pure functions over tokens and their order."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Similarity:
    """All shares are 0..1 and of learned tokens.

    `kept`: of the pairs of tokens that follow each other in the smaller vocabulary (fewer learned tokens), those that
    follow each other in the larger one as well, tokens that only one side has passed over on both. `falling`: of the
    links between shared tokens, how many lead to a token whose bytes sort lower, and `order` the share of these that
    the other side has as well: programs break ties of equal counts by an order that rises, so links that rise may be
    kept by convention alone. `order_late` is that share in the later half. `jaccard`: shared
    tokens by all tokens, each side cut to the length of the shorter one. `prefix`: tokens of the longest common
    beginning. `tau`: Kendall's, of the shared tokens' order; None below two. `in_subject`: the share of the
    reference's tokens that the subject has, `in_reference` the other way. `same_id`, `aligned`: of the smaller's
    tokens, those with the same id, and those with the commonest shift of ids. `sorted_share`: how far the order of a
    side is the alphabet's or that of lengths, which tells nothing.
    """

    shared: int
    kept: float
    falling: int
    order: float
    order_late: float
    jaccard: float
    prefix: int
    prefix_share: float
    tau: float | None
    in_subject: float
    in_reference: float
    same_id: float
    aligned: float
    shift: int
    sorted_share: float

    @property
    def n_kept(self) -> int:
        """Falling links that both sides have."""
        return round(self.order * self.falling)


def similarity(subject: Vocabulary, reference: Vocabulary) -> Similarity:
    """Compares what two vocabularies learned. Cost O(n log n)."""
    a, b = subject.learned, reference.learned
    shared = [token for token in a if token in reference.place]
    least = min(len(a), len(b))
    heads = len(set(a[:least]) & set(b[:least]))
    prefix = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), least)
    small, large = (subject, reference) if len(a) <= len(b) else (reference, subject)
    links = neighbours(small, large)
    falls = [link.is_kept for link in links if link.falls]
    shifts = Counter(large.ids[token] - small.ids[token] for token in shared)
    shift, aligned = shifts.most_common(1)[0] if shifts else (0, 0)
    places = np.array([reference.place[token] for token in shared], dtype=np.int64)
    return Similarity(
        shared=len(shared),
        kept=sum(link.is_kept for link in links) / max(1, least - 1),
        falling=len(falls),
        order=sum(falls) / max(1, len(falls)),
        order_late=sum(falls[len(falls) // 2 :]) / max(1, len(falls) - len(falls) // 2),
        jaccard=heads / max(1, 2 * least - heads),
        prefix=prefix,
        prefix_share=prefix / max(1, least),
        tau=kendall(places),
        in_subject=len(shared) / max(1, len(b)),
        in_reference=len(shared) / max(1, len(a)),
        same_id=shifts[0] / max(1, least),
        aligned=aligned / max(1, least),
        shift=shift,
        sorted_share=max(_sorted_share(a), _sorted_share(b)),
    )


class Link(NamedTuple):
    """Two shared tokens that follow each other in the smaller vocabulary: whether they do in the larger one, and
    whether the second sorts before the first by its bytes."""

    is_kept: bool
    falls: bool


def neighbours(small: Vocabulary, large: Vocabulary) -> list[Link]:
    """The links of shared tokens in the smaller one's order of learning; tokens of one side only are passed over."""
    ours = [token for token in small.learned if token in large.place]
    theirs = {token: i for i, token in enumerate(token for token in large.learned if token in small.place)}
    return [Link(theirs[after] == theirs[before] + 1, after < before) for before, after in itertools.pairwise(ours)]


def kendall(places: Places) -> float | None:
    """Kendall's tau of a permutation with its own order: 1 - 4 inversions / (n (n - 1)); None below two elements.

    Inversions are counted while merging blocks of doubling width, all blocks of a width at once: O(n log^2 n).
    """
    n = len(places)
    if n < 2:
        return None
    ranks = np.empty(n, dtype=np.int64)
    ranks[np.argsort(places, kind="stable")] = np.arange(n)
    inversions, width = 0, 1
    while width < n:
        block, right = np.arange(n) // (2 * width), (np.arange(n) // width) % 2 == 1
        order = np.lexsort((ranks, block))
        is_right = right[order]
        lefts = np.cumsum(~is_right)
        before_block = np.minimum(block[order] * width * 2, n)
        # Lefts of earlier blocks: all blocks but the last are full, so each holds `width` of them.
        smaller = lefts[is_right] - before_block[is_right] // 2
        inversions += int((width - smaller).sum())
        width *= 2
    return 1 - 4 * inversions / (n * (n - 1))


def _sorted_share(tokens: tuple[bytes, ...]) -> float:
    """The largest of the shares of neighbours that rise or fall in bytes, do not get shorter or do not get longer."""
    if len(tokens) < 3:
        return 0.0
    pairs = list(itertools.pairwise(tokens))
    rising = sum(left < right for left, right in pairs)
    not_shorter = sum(len(left) <= len(right) for left, right in pairs)
    not_longer = sum(len(left) >= len(right) for left, right in pairs)
    return max(rising, len(pairs) - rising, not_shorter, not_longer) / len(pairs)
