"""Pairs of sentences: balance, where wrong pairs come from, and how a pair is laid out."""

from __future__ import annotations

import math

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, TEXTS, kernel, rng, tokenizer

from nacre.errors import ConfigError, DataError
from nacre.train.objective import IGNORE, prepare
from nacre.train.objectives.config import PairConfig
from nacre.train.objectives.nsp import DOES_NOT, FOLLOWS, PairBatch, SentencePairs

PLAIN = [{"text": text} for text in TEXTS]


def pairs(**config: object) -> SentencePairs:
    return SentencePairs(tokenizer("bert"), PairConfig(**{"context": 64, "rates": None, **config}))  # type: ignore[arg-type]


def parts(objective: SentencePairs, batch: PairBatch, row: int) -> tuple[list[int], list[int]]:
    """The two parts of a pair, read by its [SEP]s."""
    sep = objective.tokenizer.sep_id
    ids = batch.ids[row][batch.mask[row]].tolist()
    first = ids.index(sep)
    return ids[1:first], ids[first + 1 : -1]


def document_of(objective: SentencePairs, ids: list[int]) -> int:
    """Which of TEXTS holds these tokens."""
    tok = objective.tokenizer
    found = []
    for number, text in enumerate(TEXTS):
        whole = tok.encode(text, add_special=False)
        if any(whole[at : at + len(ids)] == ids for at in range(len(whole) - len(ids) + 1)):
            found.append(number)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("relation", ["nsp", "sop"])
def test_trap_37_labels_are_balanced(relation: str) -> None:
    objective = pairs(relation=relation)
    batch = objective.collate(prepare(objective, PLAIN) * 100, rng())
    assert float(batch.relations.float().mean()) == pytest.approx(0.5, abs=0.04)


def test_trap_37_wrong_pairs_never_come_from_the_same_document_and_right_ones_always() -> None:
    objective = pairs()
    batch = objective.collate(prepare(objective, PLAIN) * 15, rng())
    for row, relation in enumerate(batch.relations.tolist()):
        first, second = parts(objective, batch, row)
        same = document_of(objective, first) == document_of(objective, second)
        assert same == (relation == FOLLOWS)


def test_trap_37_right_pairs_are_consecutive_and_swapped_ones_are_swapped() -> None:
    objective = pairs(relation="sop")
    tok = objective.tokenizer
    batch = objective.collate(prepare(objective, PLAIN) * 15, rng())
    assert set(batch.relations.tolist()) == {FOLLOWS, DOES_NOT}
    for row, relation in enumerate(batch.relations.tolist()):
        first, second = parts(objective, batch, row)
        joined = first + second if relation == FOLLOWS else second + first
        whole = tok.encode(TEXTS[document_of(objective, first)], add_special=False)
        assert any(whole[at : at + len(joined)] == joined for at in range(len(whole)))


def test_trap_37_token_types_and_separators() -> None:
    objective = pairs()
    tok = objective.tokenizer
    batch = objective.collate(prepare(objective, PLAIN), rng())
    for row in range(len(batch.ids)):
        ids, types = batch.ids[row][batch.mask[row]].tolist(), batch.token_types[row][batch.mask[row]].tolist()
        assert ids[0] == tok.cls_id
        assert ids[-1] == tok.sep_id
        assert ids.count(tok.sep_id) == 2
        assert types == [0] * (ids.index(tok.sep_id) + 1) + [1] * (len(ids) - ids.index(tok.sep_id) - 1)
        assert len(ids) <= 64


def test_length_does_not_tell_right_from_wrong() -> None:
    objective = pairs(context=96)
    rows = [{"text": " ".join(ENGLISH[i:] + ENGLISH[:i])} for i in range(5)]
    batch = objective.collate(prepare(objective, rows) * 150, rng())
    lengths = batch.mask.sum(1).float()
    right, wrong = lengths[batch.relations == FOLLOWS], lengths[batch.relations == DOES_NOT]
    assert abs(float(right.mean() - wrong.mean())) < 0.15 * float(right.mean())


def test_pretraining_hides_tokens_of_both_parts_and_adds_both_losses() -> None:
    objective = SentencePairs(tokenizer("bert"), PairConfig(context=64))
    model = kernel("bert", "pretraining")
    batch = objective.collate(prepare(objective, PLAIN), rng())
    loss = objective.loss(model, batch)
    expected = math.log(len(tokenizer("bert"))) + math.log(2)
    assert float(loss.mean.detach()) == pytest.approx(expected, rel=0.05)
    assert set(loss.metrics) == {"relation_loss", "relation_accuracy", "masked_loss", "masked_accuracy"}
    rows_with_targets = set((batch.picks[batch.targets != IGNORE] // batch.ids.shape[1]).tolist())
    assert rows_with_targets == set(range(len(batch.ids)))
    per_row = torch.zeros(len(batch.ids)).index_add_(0, batch.picks // batch.ids.shape[1], batch.weights)
    assert torch.allclose(per_row, torch.ones(len(batch.ids)))


def test_one_document_cannot_give_wrong_pairs() -> None:
    with pytest.raises(DataError, match="only one"):
        prepare(pairs(), PLAIN[:1])
    assert prepare(pairs(relation="sop"), PLAIN[:1])


def test_single_sentences_are_halved_and_counted_and_single_tokens_dropped() -> None:
    objective = pairs()
    prepare(objective, [*PLAIN, {"text": "my card was refused at the shop"}, {"text": "a"}])
    assert objective.noted["documents of one sentence, halved"] == 1
    assert objective.dropped.total() == 1


def test_long_documents_become_stretches_that_lose_nothing_in_front() -> None:
    objective = pairs(context=40)
    text = " ".join(ENGLISH)
    examples = prepare(objective, [{"text": text}, {"text": CHINESE[0]}])
    stretches = [example for example in examples if example.document == 0]
    assert len(stretches) > 2
    assert all(len(example.sentences) >= 2 and objective.length(example) <= 40 for example in examples)
    tokens = {int(one) for example in stretches for sentence in example.sentences for one in sentence.ids}
    assert tokens == set(objective.tokenizer.encode(text, add_special=False))


def test_a_tokenizer_without_the_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="cls"):
        SentencePairs(tokenizer("gpt"))
