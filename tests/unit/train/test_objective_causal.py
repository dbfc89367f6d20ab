"""Causal language modelling: what is trained, packing, bytes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, TEXTS, kernel, rng, tokenizer

from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError
from nacre.train.objective import IGNORE, LanguageScore, prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig, TokenLoss
from nacre.train.objectives.decoder import CausalBatch

PLAIN = [{"text": text} for text in TEXTS]


def causal(style: str = "gpt", **config: object) -> Causal:
    return Causal(tokenizer(style), CausalConfig(**{"context": 48, "count_bytes": True, **config}))  # type: ignore[arg-type]


def one_batch(objective: Causal, rows: list[dict[str, str]]) -> CausalBatch:
    return objective.collate(prepare(objective, rows), rng())


def scores(objective: Causal, rows: list[dict[str, str]], batch_size: int, style: str = "gpt") -> LanguageScore:
    examples, model, total = prepare(objective, rows), kernel(style), LanguageScore(0.0, 0, 0)
    for start in range(0, len(examples), batch_size):
        batch = objective.collate(examples[start : start + batch_size], rng())
        total += objective.predict(model, batch)
    return total


@pytest.mark.parametrize("packing", ["none", "documents", "stream"])
def test_trap_04_evaluation_does_not_depend_on_batch_size_or_padding(packing: str) -> None:
    by_size = [scores(causal(packing=packing), PLAIN, size) for size in (1, 3, 9)]
    assert len({(score.tokens, score.bytes) for score in by_size}) == 1
    assert [score.nll for score in by_size] == pytest.approx([by_size[0].nll] * 3, rel=1e-6)


def test_trap_05_a_batch_without_targets_has_a_finite_loss_and_no_gradient() -> None:
    objective, model = causal(), kernel("gpt")
    batch = one_batch(objective, PLAIN)
    blank = CausalBatch(**{**vars(batch), "targets": torch.full_like(batch.targets, IGNORE), "n_trained": 0})
    for chunk in (0, 7):
        objective.config = CausalConfig(context=48, loss=TokenLoss(chunk=chunk, label_smoothing=0.1, z_loss=1e-4))
        loss = objective.loss(model, blank)
        loss.sum.backward()
        assert loss.sum.item() == 0.0 == loss.mean.item()
        assert int(loss.count) == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("style", ["gpt", "llama"])
def test_trap_07_a_fresh_model_starts_near_the_logarithm_of_the_vocabulary(style: str) -> None:
    objective = causal(style)
    loss = objective.loss(kernel(style), one_batch(objective, PLAIN))
    assert loss.mean.item() == pytest.approx(math.log(len(tokenizer(style))), rel=0.05)


@pytest.mark.parametrize("packing", ["none", "documents"])
def test_trap_09_the_first_answer_token_is_trained_and_the_prompt_is_not(packing: str) -> None:
    objective = causal(packing=packing, context=128)
    tok = objective.tokenizer
    source, target = tok.encode(ENGLISH[2], add_special=False), tok.encode(CHINESE[2], add_special=False)
    batch = one_batch(objective, [{"source": ENGLISH[2], "target": CHINESE[2]}])
    trained = batch.targets[0] != IGNORE
    # The prediction *of* the first answer token is made at the last prompt token.
    first = int(trained.nonzero()[0])
    assert batch.ids[0, first] == source[-1]
    assert batch.targets[0][trained].tolist() == [*target, tok.eos_id]
    assert objective.count(batch) == len(target) + 1
    assert batch.n_bytes is not None
    assert int(batch.n_bytes[0][trained].sum()) == len(CHINESE[2].encode())


@pytest.mark.parametrize("packing", ["none", "documents", "stream"])
def test_trap_10_the_end_of_every_text_is_trained_even_where_padding_has_its_id(packing: str) -> None:
    shared = tokenizer("gpt")
    same = Tokenizer(shared.raw, {**shared.roles, "pad": shared.roles["eos"]})
    assert same.pad_id == same.eos_id == same.bos_id
    objective = Causal(same, CausalConfig(context=48, packing=packing))  # type: ignore[arg-type]
    batches = [objective.collate([example], rng()) for example in prepare(objective, PLAIN)]
    ends = sum(int((batch.targets == same.eos_id).sum()) for batch in batches)
    padding = sum(batch.ids.numel() - batch.n_tokens for batch in batches)
    assert padding > 0
    assert ends == len(TEXTS)
    assert sum(batch.n_trained for batch in batches) == sum(batch.n_tokens for batch in batches)


@pytest.mark.parametrize("style", ["gpt", "llama"])
def test_trap_19_packed_and_unpacked_documents_have_the_same_loss(style: str) -> None:
    """Learned and rotary positions: restarting positions and isolation together make packing invisible."""
    context = max(len(tokenizer(style).encode(text)) for text in TEXTS) + 20
    packed = scores(causal(style, packing="documents", context=context), PLAIN, 4, style)
    alone = scores(causal(style, packing="none", context=context), PLAIN, 1, style)
    assert (packed.tokens, packed.bytes) == (alone.tokens, alone.bytes)
    assert packed.nll == pytest.approx(alone.nll, rel=1e-5)


@pytest.mark.parametrize("style", ["gpt", "llama"])
def test_trap_21_changing_one_document_leaves_its_neighbours_alone(style: str) -> None:
    objective, model = causal(style, context=96), kernel(style)
    batch = one_batch(objective, [{"text": text[:24]} for text in TEXTS])
    assert batch.segments is not None
    shared = batch.segments[0]
    assert int(shared.max()) >= 2
    changed = torch.where(shared == 1, (batch.ids[0] + 7) % 200 + 10, batch.ids[0])
    with torch.no_grad():
        before = model(batch.ids[:1], segments=batch.segments[:1], positions=batch.positions[:1]).hidden[0]  # type: ignore[index]
        after = model(changed[None], segments=batch.segments[:1], positions=batch.positions[:1]).hidden[0]  # type: ignore[index]
    assert not torch.equal(before[shared == 1], after[shared == 1])
    assert torch.equal(before[shared == 2], after[shared == 2])


def test_positions_restart_and_padding_belongs_to_no_document() -> None:
    batch = one_batch(causal(context=96), [{"text": text[:24]} for text in TEXTS])
    assert batch.segments is not None
    assert batch.positions is not None
    for segments, positions, targets in zip(batch.segments, batch.positions, batch.targets, strict=True):
        for document in range(1, int(segments.max()) + 1):
            inside = segments == document
            assert positions[inside].tolist() == list(range(int(inside.sum())))
        assert (targets[segments == 0] == IGNORE).all()


def test_every_prediction_of_every_document_is_made_once_however_it_is_packed() -> None:
    tok, rows = tokenizer("llama"), [{"text": text * 3} for text in TEXTS]
    wanted = sorted(
        pair
        for row in rows
        for ids in [[tok.bos_id, *tok.encode(row["text"], add_special=False), tok.eos_id]]
        for pair in pairwise(ids)
    )
    for packing in ("none", "documents", "stream"):
        objective = causal("llama", packing=packing)
        batch = one_batch(objective, rows)
        real = batch.targets != IGNORE
        pairs = sorted(zip(batch.ids[real].tolist(), batch.targets[real].tolist(), strict=True))
        if packing == "stream":  # here the step from one document to the next is predicted as well
            for _ in rows[1:]:
                pairs.remove((tok.eos_id, tok.bos_id))
        assert pairs == wanted


def test_bytes_of_all_targets_are_the_bytes_of_the_text() -> None:
    for style in ("gpt", "llama"):
        for packing in ("none", "documents"):
            score = scores(causal(style, packing=packing), PLAIN, 2, style)
            assert score.bytes == sum(len(text.encode()) for text in TEXTS)


def test_long_pairs_are_cut_and_counted_and_their_end_is_not_trained() -> None:
    objective = causal(context=40)
    room = 40 - len(objective.tokenizer.encode(ENGLISH[0], add_special=False)) - 1
    assert room > 0
    batch = one_batch(objective, [{"source": ENGLISH[0], "target": CHINESE[0]}])
    assert objective.truncated.total() == 1
    assert objective.tokenizer.eos_id not in batch.targets
    long_source = {"source": ENGLISH[0] * 9, "target": CHINESE[0]}
    assert objective.encode(long_source) is None
    assert objective.dropped.total() == 1


def test_a_tokenizer_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="end-of-sequence"):
        Causal(tokenizer("bert"))
    assert Causal(tokenizer("bert"), CausalConfig(add_eos=False)).encode({"text": ENGLISH[0]})


def test_packing_tells_what_it_did() -> None:
    objective = causal(packing="documents", context=16)
    prepare(objective, PLAIN)
    assert objective.report is not None
    assert objective.report.split_documents > 0
    assert objective.report.kept + objective.report.padding == objective.report.blocks * 16
    assert objective.report.dropped_positions == 0
