"""A `Vocabulary` from what a file of each algorithm lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.tokenizers.vocabulary import Algorithm, Surface, Vocabulary, in_order, units


def scored_bpe(rows: Sequence[tuple[bytes, int, float]], special: dict[str, int], added: dict[str, int]) -> Vocabulary:
    """SentencePiece BPE of (token, id, score): a higher score was learned earlier."""
    order = sorted(rows, key=lambda row: (-row[2], row[1]))
    learned = in_order((token for token, _, _ in order), "characters")
    return Vocabulary("bpe", "characters", {token: i for token, i, _ in rows}, learned, special, added)


def bpe(
    surface: Surface,
    spell: Callable[[str], bytes],
    ordinary: Mapping[str, int],
    merges: Sequence[tuple[str, ...]],
    special: dict[str, int],
    added: dict[str, int],
) -> Vocabulary:
    """BPE with listed merges. What no merge makes and is longer than a unit was put in by hand: a special token."""
    bad = next((merge for merge in merges if len(merge) != 2), None)
    if bad is not None:
        raise CheckpointError(
            say("the merge {bad} is no pair", bad=repr(bad)), remedy="copy the file again from its source"
        )
    pairs = [(spell(merge[0]), spell(merge[1])) for merge in merges]
    spelled = {spell(token): index for token, index in ordinary.items()}
    made = in_order((left + right for left, right in pairs), surface)
    known, order = set(made), [token for token in made if token in spelled]
    by_hand = {
        token: index
        for token, index in ordinary.items()
        if spell(token) not in known and units(spell(token), surface) > 1
    }
    ids = {token: index for token, index in spelled.items() if token in known or units(token, surface) <= 1}
    # SentencePiece files rewritten as merges list every split of a token: those merges were never learned one by one.
    listed = tuple(pairs) if len(pairs) == len(made) else ()
    return Vocabulary("bpe", surface, ids, tuple(order), {**by_hand, **special}, added, listed)


def unigram(pieces: Sequence[tuple[bytes, float]], special: dict[str, int], added: dict[str, int]) -> Vocabulary:
    """Unigram of (token, log probability), in the order of ids; byte pieces carry no learned score."""
    apart = {*special.values(), *added.values()}
    rows = [(token, index, score) for index, (token, score) in enumerate(pieces) if index not in apart]
    order = sorted(rows, key=lambda row: (-row[2], row[1]))
    learned = in_order((token for token, _, _ in order), "characters")
    ids = {token: index for token, index, _ in rows}
    scores = {token: score for token, _, score in rows}
    return Vocabulary("unigram", "characters", ids, learned, special, added, scores=scores)


def by_ids(
    algorithm: Algorithm, surface: Surface, ids: Mapping[bytes, int], special: dict[str, int], added: dict[str, int]
) -> Vocabulary:
    order = sorted(ids, key=lambda token: ids[token])
    return Vocabulary(algorithm, surface, dict(ids), in_order(order, surface), special, added)
