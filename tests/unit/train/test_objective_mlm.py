"""Masked language modelling: what is hidden, and from where."""

from __future__ import annotations

import math

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, TEXTS, kernel, rng, tokenizer

from nacre.data.words import word_spans
from nacre.errors import ConfigError
from nacre.train.masking import PICK_MULTIPLE, Draws, draw, select
from nacre.train.objective import IGNORE, MaskedScore, prepare
from nacre.train.objectives.config import MaskedConfig, MaskRates
from nacre.train.objectives.mlm import MaskedBatch, MaskedLM
from nacre.train.wordgroups import grouped

PLAIN = [{"text": text} for text in TEXTS]


def masked(**config: object) -> MaskedLM:
    return MaskedLM(tokenizer("bert"), MaskedConfig(**{"context": 64, **config}))  # type: ignore[arg-type]


def originals(objective: MaskedLM, batch: MaskedBatch) -> torch.Tensor:
    """The ids before masking: the targets put back."""
    flat, real = batch.ids.flatten().clone(), batch.targets != IGNORE
    flat[batch.picks[real]] = batch.targets[real]
    return flat.view_as(batch.ids)


def selected(batch: MaskedBatch) -> torch.Tensor:
    chosen = torch.zeros(batch.ids.numel(), dtype=torch.bool)
    chosen[batch.picks[batch.targets != IGNORE]] = True
    return chosen.view_as(batch.ids)


@pytest.mark.parametrize("whole_words", [False, True])
def test_trap_36_fifteen_percent_selected_of_which_80_10_10(whole_words: bool) -> None:
    objective = masked(whole_words=whole_words)
    examples = prepare(objective, PLAIN) * 60
    batch = objective.collate(examples, rng())
    before, chosen = originals(objective, batch), selected(batch)
    eligible = sum(int((example.groups >= 0).sum()) for example in examples)
    assert int(chosen.sum()) / eligible == pytest.approx(0.15, abs=0.005)
    now, then = batch.ids[chosen], before[chosen]
    is_mask = now == objective.tokenizer.mask_id
    assert float(is_mask.float().mean()) == pytest.approx(0.8, abs=0.02)
    kept = (now == then).float().mean()
    assert float(kept) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(batch.ids[~chosen], before[~chosen])


@pytest.mark.parametrize("whole_words", [False, True])
def test_trap_36_special_tokens_and_padding_are_never_selected(whole_words: bool) -> None:
    objective = masked(whole_words=whole_words, rates=MaskRates(selected=0.9))
    special = torch.tensor(sorted(objective.tokenizer.special_ids))
    for seed in range(20):
        batch = objective.collate(prepare(objective, [*PLAIN, {"text": "\u2603 unseen sign \u2603"}]), rng(seed))
        chosen = selected(batch)
        assert not chosen[~batch.mask].any()
        assert not torch.isin(originals(objective, batch)[chosen], special).any()
        # Random replacements are ordinary tokens as well.
        swapped = chosen & (batch.ids != objective.tokenizer.mask_id)
        assert not torch.isin(batch.ids[swapped], special).any()


def test_trap_36_every_row_has_a_target_however_short() -> None:
    objective = masked(rates=MaskRates(selected=0.01))
    short = [{"text": text} for text in ("late", "the", "包裹", "a b", "谢谢")]
    for seed in range(20):
        batch = objective.collate(prepare(objective, short), rng(seed))
        assert selected(batch).any(dim=1).all()


@pytest.mark.parametrize("text", [*ENGLISH, *CHINESE])
def test_trap_36_words_are_hidden_whole_or_not_at_all(text: str) -> None:
    """English words of several pieces, and Chinese words as the segmenter cuts them."""
    tok = tokenizer("bert")
    spans = tok.spans(text)
    words = word_spans(text)
    word_of = [next(at for at, (start, end) in enumerate(words) if start <= one < end) for one, _ in spans.offsets]
    assert len(set(word_of)) < len(word_of)
    objective = masked()
    example = prepare(objective, [{"text": text}])[0]
    for seed in range(30):
        chosen = selected(objective.collate([example], rng(seed)))[0, 1 : 1 + len(word_of)].tolist()
        eligible = [group >= 0 for group in example.groups[1:-1]]
        for word in set(word_of):
            fate = {hidden for hidden, may, own in zip(chosen, eligible, word_of, strict=True) if may and own == word}
            assert len(fate) <= 1


def test_chinese_words_span_characters() -> None:
    tok = tokenizer("bert")
    groups = grouped(tok, "我想修改收货地址", whole_words=True).groups
    assert len(set(groups.tolist())) < len(groups)
    assert grouped(tok, "我想修改收货地址", whole_words=False).groups.tolist() == list(range(len(groups)))


def test_trap_04_the_masks_of_a_row_do_not_depend_on_its_batch() -> None:
    objective, model = masked(), kernel("bert")
    examples = prepare(objective, PLAIN)
    totals = []
    for size in (1, 4, 9):
        stream, total = rng(), MaskedScore(0.0, 0, 0)
        for start in range(0, len(examples), size):
            total += objective.predict(model, objective.collate(examples[start : start + size], stream))
        totals.append(total)
    assert len({(total.tokens, total.correct) for total in totals}) == 1
    assert [total.nll for total in totals] == pytest.approx([totals[0].nll] * 3, rel=1e-5)


def test_trap_07_a_fresh_model_starts_near_the_logarithm_of_the_vocabulary() -> None:
    objective = masked()
    loss = objective.loss(kernel("bert"), objective.collate(prepare(objective, PLAIN), rng()))
    assert loss.mean.item() == pytest.approx(math.log(len(tokenizer("bert"))), rel=0.05)


def test_only_masked_positions_go_through_the_head() -> None:
    objective, model = masked(), kernel("bert")
    batch = objective.collate(prepare(objective, PLAIN), rng())
    assert len(batch.picks) % PICK_MULTIPLE == 0
    assert len(batch.picks) < batch.mask.sum() / 2
    full = model.lm_logits(model(batch.ids, mask=batch.mask).hidden)
    targets = torch.full(batch.ids.shape, IGNORE)
    targets.view(-1)[batch.picks[batch.targets != IGNORE]] = batch.targets[batch.targets != IGNORE]
    by_hand = torch.nn.functional.cross_entropy(full.flatten(0, 1), targets.flatten(), reduction="sum")
    assert objective.loss(model, batch).sum.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_long_texts_lose_no_token_and_are_cut_between_words() -> None:
    objective = masked(context=16)
    text = " ".join(TEXTS)
    examples = prepare(objective, [{"text": text}])
    tok = objective.tokenizer
    assert [int(one) for example in examples for one in example.ids[1:-1]] == tok.encode(text, add_special=False)
    assert max(map(len, examples)) <= 16
    assert objective.noted["texts cut into several examples"] == 1
    pieces = [tok.token(int(example.ids[1])) for example in examples]
    assert not any(piece.startswith("##") for piece in pieces)


def test_a_word_longer_than_the_row_is_still_hidden() -> None:
    groups = torch.tensor([[0, 0, 0, 0, -1], [-1, -1, -1, -1, -1]])
    chosen = select(groups, 0.15, Draws.of([draw(5, rng()), draw(5, rng())], 5))
    assert chosen.tolist() == [[True, True, True, True, False], [False] * 5]


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(ConfigError, match="mask"):
        MaskedLM(tokenizer("gpt"))
    with pytest.raises(ConfigError, match="share"):
        MaskRates(selected=0.0)
    with pytest.raises(ConfigError, match="at most 1"):
        MaskRates(masked=0.9, random=0.2)
