"""Span corruption and sequence to sequence: what the decoder reads and writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from objective_kit import CHINESE, ENGLISH, TEXTS, kernel, rng, tokenizer

from nacre.errors import ConfigError
from nacre.train.objective import IGNORE, prepare
from nacre.train.objectives.config import Seq2SeqConfig, SpanConfig
from nacre.train.objectives.seq2seq import Seq2Seq
from nacre.train.objectives.span import SpanCorruption, corrupted, noise_spans

PLAIN = [{"text": text} for text in TEXTS]
PAIRED = [{"source": english, "target": chinese} for english, chinese in zip(ENGLISH, CHINESE, strict=False)]


@pytest.mark.parametrize(("density", "mean_span"), [(0.15, 3.0), (0.5, 2.0), (0.8, 3.0)])
def test_trap_38_noise_density_and_mean_span_are_met(density: float, mean_span: float) -> None:
    config, stream = SpanConfig(density=density, mean_span=mean_span), rng()
    drawn = [noise_spans(200, config, 100, stream) for _ in range(300)]
    noise = sum(stop - start for spans in drawn for start, stop in spans)
    assert noise / (200 * len(drawn)) == pytest.approx(density, abs=0.01)
    spans = sum(map(len, drawn))
    # Beyond a density of 1/2 there are too few other tokens to keep all spans apart.
    apart = min(1.0, (1 - density) * 200 / (200 * density / mean_span))
    assert noise / spans == pytest.approx(mean_span / apart, rel=0.05)


def test_trap_38_short_texts_meet_the_density_on_average() -> None:
    stream = rng()
    noise = [sum(stop - start for start, stop in noise_spans(10, SpanConfig(), 100, stream)) for _ in range(2000)]
    assert np.mean(noise) == pytest.approx(1.5, abs=0.05)


def test_trap_38_the_last_token_is_not_always_noise() -> None:
    stream = rng()
    last = [noise_spans(40, SpanConfig(), 100, stream)[-1][1] == 40 for _ in range(400)]
    first = [noise_spans(40, SpanConfig(), 100, stream)[0][0] == 0 for _ in range(400)]
    assert 0.0 < np.mean(last) < 0.4
    assert 0.0 < np.mean(first) < 0.4


def test_trap_38_input_and_target_on_one_example() -> None:
    example = corrupted(np.arange(10, 18, dtype=np.int32), [(1, 3), (5, 6)], sentinels=[99, 98, 97], eos_id=1)
    assert example.source.tolist() == [10, 99, 13, 14, 98, 16, 17, 1]
    assert example.target.tolist() == [99, 11, 12, 98, 15, 1]


def test_sentinels_descend_in_the_published_layout() -> None:
    ids = SpanCorruption(tokenizer("t5")).sentinels
    assert len(ids) == 100
    assert list(ids) == sorted(ids, reverse=True)


@pytest.mark.parametrize("density", [0.15, 0.6, 0.95])
def test_corrupted_texts_fit_the_context(density: float) -> None:
    objective = SpanCorruption(tokenizer("t5"), SpanConfig(context=24, density=density))
    examples = prepare(objective, [*PLAIN, {"text": " ".join(TEXTS)}])
    assert objective.noted["texts cut into several examples"] > 0
    for seed in range(10):
        batch = objective.collate(examples, rng(seed))
        assert int(batch.mask.sum(1).max()) <= 24
        assert int((batch.targets != IGNORE).sum(1).max()) <= 24


def test_one_token_is_dropped_and_sentinels_are_needed() -> None:
    objective = SpanCorruption(tokenizer("t5"))
    one = next(t for t in "aeiou" if len(tokenizer("t5").encode(t, add_special=False)) == 1)
    assert objective.encode({"text": one}) is None
    assert objective.dropped.total() == 1
    with pytest.raises(ConfigError, match=r"extra_id_0|start"):
        SpanCorruption(tokenizer("gpt"))
    for bad in ({"density": 0.0}, {"density": 1.0}, {"mean_span": 0.5}):
        with pytest.raises(ConfigError):
            SpanConfig(**bad)


def test_trap_09_the_first_target_token_is_trained_from_the_start_token() -> None:
    objective = Seq2Seq(tokenizer("t5"))
    tok = objective.tokenizer
    batch = objective.collate(prepare(objective, PAIRED[:2]), rng())
    for row, pair in enumerate(PAIRED[:2]):
        target = [*tok.encode(pair["target"], add_special=False), tok.eos_id]
        assert batch.decoder_ids[row, : len(target)].tolist() == [tok.pad_id, *target[:-1]]
        assert batch.targets[row, : len(target)].tolist() == target
        assert (batch.targets[row, len(target) :] == IGNORE).all()
        assert batch.ids[row][batch.mask[row]].tolist() == [*tok.encode(pair["source"], add_special=False), tok.eos_id]


def test_trap_04_padding_of_a_longer_neighbour_changes_nothing() -> None:
    objective, model = Seq2Seq(tokenizer("t5")), kernel("t5")
    examples = prepare(objective, [PAIRED[0], {"source": ENGLISH[0] * 3, "target": CHINESE[1] * 2}])
    alone = objective.predict(model, objective.collate(examples[:1], rng()))
    other = objective.predict(model, objective.collate(examples[1:], rng()))
    both = objective.predict(model, objective.collate(examples, rng()))
    assert both.nll == pytest.approx(alone.nll + other.nll, rel=1e-5)
    assert alone.bytes == len(PAIRED[0]["target"].encode())


def test_cut_targets_have_no_end_and_are_counted() -> None:
    objective = Seq2Seq(tokenizer("t5"), Seq2SeqConfig(context=8, target_context=6))
    example = prepare(objective, PAIRED[:1])[0]
    assert (len(example.source), len(example.target)) == (8, 6)
    assert example.source[-1] == objective.eos_id != example.target[-1]
    assert objective.truncated.total() == 2
    spelled = objective.tokenizer.decode(example.target.tolist())
    assert example.n_bytes <= len(CHINESE[0].encode())
    assert example.n_bytes == len(spelled.replace(" ", "").encode())


def test_the_start_token_of_kernel_and_objective_must_agree() -> None:
    with pytest.raises(ConfigError, match="starts from"):
        Seq2Seq(tokenizer("t5"), Seq2SeqConfig(start_id=5)).check(kernel("t5"))


def test_gradient_reaches_the_encoder() -> None:
    objective, model = Seq2Seq(tokenizer("t5")), kernel("t5")
    objective.loss(model, objective.collate(prepare(objective, PAIRED), rng())).sum.backward()
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all()
        for name, parameter in model.named_parameters()
        if "encoder.layers" in name
    )
