"""Laws of masking, span corruption and packing, on whatever hypothesis finds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_kit import TEXTS, rng, tokenizer

from nacre.data.pack import pack, stream
from nacre.train.arrays import bytes_per_token
from nacre.train.masking import Draws, corrupt, draw, select
from nacre.train.objective import IGNORE
from nacre.train.objectives.config import MaskRates, SpanConfig
from nacre.train.objectives.span import corrupted, longest_text, noise_spans
from nacre.train.wordgroups import WordTokens, cut_evenly, joined

settings.register_profile("objectives", deadline=None, max_examples=150)
settings.load_profile("objectives")

seeds = st.integers(0, 2**32)
rows_of_words = st.lists(st.lists(st.integers(1, 5), max_size=12), min_size=1, max_size=6)


def groups_of(rows: list[list[int]], width: int) -> torch.Tensor:
    """Rows of words, given by their lengths, between two special tokens and padded."""
    groups = torch.full((len(rows), width), -1)
    for place, sizes in zip(groups, rows, strict=True):
        words = torch.tensor([word for word, size in enumerate(sizes) for _ in range(size)], dtype=torch.int64)
        place[1 : 1 + len(words)] = words
    return groups


@given(rows_of_words, st.floats(0.01, 0.99), seeds)
def test_masks_hold_whole_words_and_at_least_one(rows: list[list[int]], share: float, seed: int) -> None:
    width = max(sum(sizes) for sizes in rows) + 3
    groups = groups_of(rows, width)
    generator = rng(seed)
    chosen = select(groups, share, Draws.of([draw(sum(sizes) + 2, generator) for sizes in rows], width))
    assert not chosen[groups < 0].any()
    for sizes, row, hidden in zip(rows, groups, chosen, strict=True):
        assert bool(hidden.any()) == bool(sizes)
        for word in range(len(sizes)):
            assert len(set(hidden[row == word].tolist())) == 1
        longest = max(sizes, default=0)
        assert int(hidden.sum()) <= max(share * sum(sizes) + 1 + longest / 2, longest)


@given(rows_of_words, seeds)
def test_masking_loses_nothing(rows: list[list[int]], seed: int) -> None:
    width = max(sum(sizes) for sizes in rows) + 3
    ids = torch.randint(10, 50, (len(rows), width), generator=rng(seed))
    generator = rng(seed)
    draws = Draws.of([draw(sum(sizes) + 2, generator) for sizes in rows], width)
    chosen = select(groups_of(rows, width), 0.3, draws)
    masked = corrupt(ids, chosen, 3, torch.arange(10, 50), MaskRates(), draws)
    assert torch.equal(masked.ids[~chosen], ids[~chosen])
    real = masked.targets != IGNORE
    restored = masked.ids.flatten().clone()
    restored[masked.picks[real]] = masked.targets[real]
    assert torch.equal(restored.view_as(ids), ids)
    assert int(real.sum()) == masked.n_selected == int(chosen.sum())


@given(st.integers(2, 120), st.floats(0.001, 0.999), st.floats(1.0, 12.0), st.integers(1, 100), seeds)
def test_spans_are_apart_in_order_and_as_much_noise_as_asked(
    n: int, density: float, mean_span: float, most: int, seed: int
) -> None:
    spans = noise_spans(n, SpanConfig(density=density, mean_span=mean_span), most, rng(seed))
    assert 1 <= len(spans) <= most
    assert all(0 <= start < stop <= n for start, stop in spans)
    assert all(stop < following for (_, stop), (following, _) in pairwise(spans))
    noise = sum(stop - start for start, stop in spans)
    assert min(max(int(n * density), 1), n - 1) <= noise <= min(max(int(n * density) + 1, 1), n - 1)


@given(st.integers(2, 120), st.floats(0.001, 0.999), st.floats(1.0, 12.0), seeds)
def test_input_and_target_reconstruct_the_text(n: int, density: float, mean_span: float, seed: int) -> None:
    text = np.arange(n, dtype=np.int32)
    sentinels = list(range(1099, 999, -1))
    spans = noise_spans(n, SpanConfig(density=density, mean_span=mean_span), len(sentinels), rng(seed))
    example = corrupted(text, spans, sentinels, eos_id=5000)
    source, target = example.source.tolist(), example.target.tolist()
    assert source.pop() == target.pop() == 5000
    used = [one for one in source if one >= 1000]
    assert used == [one for one in target if one >= 1000] == sentinels[: len(spans)]
    hidden: dict[int, list[int]] = {}
    for one in target:
        if one >= 1000:
            hidden[one] = noise = []
        else:
            noise.append(one)
    assert [back for one in source for back in hidden.get(one, [one])] == text.tolist()


@given(st.integers(6, 80), st.floats(0.01, 0.99), st.floats(1.0, 8.0), seeds)
def test_the_longest_text_fits_the_context(context: int, density: float, mean_span: float, seed: int) -> None:
    config = SpanConfig(context=context, density=density, mean_span=mean_span)
    n = longest_text(config, 100)
    for length in {2, n // 2, n} - {0, 1}:
        text = np.arange(length, dtype=np.int32)
        example = corrupted(text, noise_spans(length, config, 100, rng(seed)), range(1000, 1100), 5000)
        assert max(len(example.source), len(example.target)) <= context


lengths = st.lists(st.integers(0, 70), max_size=60)


@given(lengths, st.integers(1, 32))
def test_packing_places_every_position_once_and_counts(lengths: list[int], size: int) -> None:
    blocks, report = pack(lengths, size)
    placed = sorted(
        (piece.document, at) for block in blocks for piece in block for at in range(piece.start, piece.stop)
    )
    assert placed == [(document, at) for document, length in enumerate(lengths) for at in range(length)]
    assert all(0 < sum(piece.stop - piece.start for piece in block) <= size for block in blocks)
    assert report.kept + report.padding == report.blocks * size == len(blocks) * size
    assert (report.kept, report.dropped_positions) == (sum(lengths), 0)
    assert report.dropped_documents == lengths.count(0)
    # Any two blocks together overflow, or best fit would have joined them: at most twice the fewest blocks.
    assert len(blocks) <= 2 * max(1, -(-sum(lengths) // size))


@given(lengths, st.integers(1, 32), st.integers(1, 9))
def test_dropped_pieces_are_counted(lengths: list[int], size: int, min_piece: int) -> None:
    blocks, report = pack(lengths, size, min_piece=min_piece)
    kept = sum(piece.stop - piece.start for block in blocks for piece in block)
    assert report.kept == kept == sum(lengths) - report.dropped_positions
    assert all(piece.stop - piece.start >= min_piece for block in blocks for piece in block)


@given(lengths, st.integers(1, 32), st.booleans())
def test_a_stream_predicts_every_token_but_the_first_once(lengths: list[int], size: int, drop_tail: bool) -> None:
    offsets = np.cumsum([0, *lengths])
    documents = [np.arange(start, start + length) for start, length in zip(offsets, lengths, strict=False)]
    blocks, report = stream(documents, size, drop_tail=drop_tail)
    predicted = [int(one) for block in blocks for one in block[1:]]
    assert predicted == list(range(1, report.kept + 1))
    assert report.kept + report.dropped_positions == max(0, sum(lengths) - 1)
    assert all(len(block) == size + 1 for block in (blocks if drop_tail else blocks[:-1]))
    assert report.dropped_positions < size if drop_tail else report.dropped_positions == 0
    assert all((block[:-1] + 1 == block[1:]).all() for block in blocks)


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=20), min_size=1, max_size=4), st.integers(2, 15))
def test_cutting_keeps_all_tokens_and_numbers_words_within_the_part(rows: list[list[int]], room: int) -> None:
    parts = []
    for sizes in rows:
        groups = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
        parts.append(WordTokens(np.arange(len(groups), dtype=np.int32), groups))
    whole = joined(parts)
    pieces = cut_evenly(whole, room)
    assert [int(one) for piece in pieces for one in piece.ids] == whole.ids.tolist()
    assert all(
        0 < len(piece) <= room and 0 <= piece.groups.min() <= piece.groups.max() < len(piece) for piece in pieces
    )


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40) | st.sampled_from(TEXTS), st.sampled_from(["bert", "gpt", "llama", "t5"]))
def test_bytes_of_tokens_add_up_to_the_text(text: str, style: str) -> None:
    spans = tokenizer(style).spans(text)
    counted = bytes_per_token(text, spans.offsets)
    assert len(counted) == len(spans.ids)
    assert (counted >= 0).all()
    if len(counted):
        assert int(counted.sum()) == len(text.encode())
