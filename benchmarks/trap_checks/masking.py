"""Trap 36: what masked language modelling selects. Tokens are those of one WordPiece tokenizer for all toolkits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch

from nacre.data.words import word_spans
from nacre.train.objective import IGNORE, prepare
from nacre.train.objectives.config import MaskedConfig
from nacre.train.objectives.mlm import MaskedLM
from trap_checks.given import CHINESE, ENGLISH, SHORT, Check, Found, tokenizer, words_of

Drawn = Iterator[tuple[torch.Tensor, torch.Tensor]]
# (texts, whole words, how often) -> for each draw the ids before masking and what is selected, both (B, T).
Masks = Callable[[Sequence[str], bool, int], Drawn]


def nacre(texts: Sequence[str], whole_words: bool, draws: int) -> Drawn:
    objective = MaskedLM(tokenizer("bert"), MaskedConfig(context=64, whole_words=whole_words))
    examples, rng = prepare(objective, [{"text": text} for text in texts]), torch.Generator().manual_seed(0)
    for _ in range(draws):
        batch = objective.collate(examples, rng)
        real = batch.targets != IGNORE
        chosen, before = torch.zeros(batch.ids.numel(), dtype=torch.bool), batch.ids.flatten().clone()
        chosen[batch.picks[real]], before[batch.picks[real]] = True, batch.targets[real]
        yield before.view_as(batch.ids), chosen.view_as(batch.ids)


def collator(texts: Sequence[str], whole_words: bool, draws: int) -> Drawn:
    """transformers.DataCollatorForLanguageModeling."""
    import transformers

    words = words_of("bert")
    collate = transformers.DataCollatorForLanguageModeling(words, whole_word_mask=whole_words, seed=0)
    for _ in range(draws):
        batch = collate([dict(words(text, return_offsets_mapping=whole_words)) for text in texts])
        chosen = batch["labels"] != IGNORE
        yield torch.where(chosen, batch["labels"], batch["input_ids"]), chosen


def special_tokens(masks: Masks) -> Found:
    special = torch.tensor(sorted(tokenizer("bert").special_ids))
    touched = sum(int((chosen & torch.isin(before, special)).sum()) for before, chosen in masks(ENGLISH, False, 200))
    return Found(touched == 0, f"{touched} special or padding tokens selected in 200 batches")


def a_target_in_every_row(masks: Masks) -> Found:
    empty = sum(int((~chosen.any(dim=1)).sum()) for _, chosen in masks(SHORT, False, 200))
    return Found(empty == 0, f"{empty} of {200 * len(SHORT)} rows of one or two words have nothing to predict")


def whole_words(text: str) -> Callable[[Masks], Found]:
    """No word is selected in part, and words are not chained: any two neighbours part in one of many draws."""

    def ask(masks: Masks) -> Found:
        spans, words = tokenizer("bert").spans(text), word_spans(text)
        word_of = [next(at for at, (a, b) in enumerate(words) if a <= start < b) for start, _ in spans.offsets]
        split, chained = 0, set(pairwise(range(len(words))))
        for _, chosen in masks([text], True, 400):
            fates: list[set[bool]] = [set() for _ in words]
            for word, hidden in zip(word_of, chosen[0, 1 : 1 + len(word_of)].tolist(), strict=True):
                fates[word].add(hidden)
            split += sum(len(fate) > 1 for fate in fates)
            chained -= {(left, right) for left, right in chained if fates[left] != fates[right]}
        neighbours = len(words) - 1
        measured = f"{split} words selected in part in 400 draws; {len(chained)} of {neighbours} neighbours never part"
        return Found(not split and not chained, measured)

    return ask


QUESTIONS: list[tuple[str, Callable[[Masks], Found]]] = [
    ("special and padding tokens never selected", special_tokens),
    ("every row has a target", a_target_in_every_row),
    ("words hidden whole, English", whole_words(ENGLISH[0])),
    ("words hidden whole, Chinese", whole_words(CHINESE)),
]


def checks() -> list[Check]:
    subjects: list[tuple[str, str, Masks]] = [
        ("nacre", "nacre", nacre),
        ("transformers.DataCollatorForLanguageModeling", "transformers", collator),
    ]
    return [
        Check("36", asks, toolkit, package, lambda ask=ask, masks=masks: ask(masks))  # type: ignore[misc]
        for asks, ask in QUESTIONS
        for toolkit, package, masks in subjects
    ]
