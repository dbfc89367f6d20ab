"""Tagging: alignment of tags with sub-tokens, windows, and the way back."""

from __future__ import annotations

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, kernel, rng, tokenizer

from nacre.errors import ConfigError, DataError
from nacre.train.objective import IGNORE, prepare
from nacre.train.objectives.config import TagConfig
from nacre.train.objectives.tag import Tag, join_parts, tags_of

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def tagger(style: str = "bert", **config: object) -> Tag:
    return Tag(tokenizer(style), LABELS, TagConfig(**{"context": 128, **config}))  # type: ignore[arg-type]


def row_of(tokens: list[str]) -> dict[str, list[str]]:
    """Tags that count up, so that a shift by one shows."""
    return {"tokens": tokens, "tags": [LABELS[at % 5] for at in range(len(tokens))]}


WORDS, CHARACTERS = row_of(ENGLISH[3].split()), row_of(list(CHINESE[1]))


@pytest.mark.parametrize("style", ["bert", "gpt", "t5", "llama"])
@pytest.mark.parametrize("row", [WORDS, CHARACTERS], ids=["words", "characters"])
def test_every_token_has_its_tag_at_its_first_sub_token(style: str, row: dict[str, list[str]]) -> None:
    objective = tagger(style)
    example = objective.encode(row)
    heads = example.owners >= 0
    assert example.owners[heads].tolist() == list(range(len(row["tokens"])))
    assert [LABELS[tag] for tag in example.targets[heads]] == row["tags"]
    assert (example.targets[~heads] == IGNORE).all()


def test_all_sub_tokens_may_be_trained_and_an_entity_begins_once() -> None:
    tok = tokenizer("bert")
    word = next(word for word in ENGLISH[3].split() if len(tok.encode(word, add_special=False)) > 1)
    example = tagger(trained="all").encode({"tokens": [word, word], "tags": ["B-PER", "O"]})
    n = len(tok.encode(word, add_special=False))
    assert [LABELS[tag] for tag in example.targets] == ["B-PER"] + ["I-PER"] * (n - 1) + ["O"] * n


def test_words_of_running_text_keep_their_blank() -> None:
    tok = tokenizer("gpt")
    words = ENGLISH[0].split()
    spelled = [one for one in tok.encode(ENGLISH[0], add_special=False) if tok.decode([one]) != " "]
    assert tagger("gpt").encode(row_of(words)).ids.tolist() == spelled


@pytest.mark.parametrize("overlap", [0, 1, 4, 7])
@pytest.mark.parametrize("trained", ["first", "all"])
def test_windows_train_and_tag_every_token_once(overlap: int, trained: str) -> None:
    objective = tagger(context=12, overlap=overlap, trained=trained)
    model = kernel("bert", "tag", labels=LABELS)
    rows = [row_of((ENGLISH[3] + " " + ENGLISH[0]).split()), row_of(list(CHINESE[1])), row_of(["sofort"])]
    examples = prepare(objective, rows)
    assert max(map(objective.length, examples)) <= 12
    owned = sorted((example.row, int(one)) for example in examples for one in example.owners if one >= 0)
    assert owned == [(number, at) for number, row in enumerate(rows) for at in range(len(row["tokens"]))]
    parts = [part for one in examples for part in objective.predict(model, objective.collate([one], rng()))]
    joined = join_parts(reversed(parts))
    assert [len(joined[number]) for number in range(3)] == [len(row["tokens"]) for row in rows]
    assert objective.noted["rows longer than the context, tagged in windows"] == 2


def test_tokens_of_many_pieces_fall_into_no_gap_between_windows() -> None:
    objective = tagger(context=8, overlap=2)
    rows = [row_of(["unreadableunreadableunreadable", "no", "unreadableunreadable", "yes", "unreadable"])]
    owned = sorted(int(one) for example in prepare(objective, rows) for one in example.owners if one >= 0)
    assert owned == [0, 1, 2, 3, 4]


def test_predictions_are_those_of_the_head_at_the_first_sub_tokens() -> None:
    objective, model = tagger(), kernel("bert", "tag", labels=LABELS)
    batch = objective.collate(prepare(objective, [WORDS, CHARACTERS]), rng())
    with torch.no_grad():
        best = model.tag_logits(model(batch.ids, mask=batch.mask).hidden).argmax(-1)
    joined = join_parts(objective.predict(model, batch))
    for row in (0, 1):
        assert joined[row] == best[row][batch.owners[row] >= 0].tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"], "tags": ["B-ORG"]}, "tag 'B-ORG' in the field 'tags' is not among"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens have 1 tags"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "field 'tokens'"),
        ({"tokens": "ab", "tags": ["O", "O"]}, "field 'tokens'"),
        ({"tokens": ["a"]}, "field 'tags'"),
    ],
)
def test_rows_that_are_wrong(row: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        prepare(tagger(), [WORDS, row])


def test_labels_of_rows_hold_both_places_of_each_type() -> None:
    assert tags_of([{"tags": ["O", "I-PER"]}, {"tags": ["B-LOC"]}]) == LABELS
    with pytest.raises(DataError, match=r"row 1: 'PER' .* BIO"):
        tags_of([{"tags": ["PER"]}])


def test_broken_sequences_are_counted() -> None:
    objective = tagger()
    objective.encode({"tokens": list("abcd"), "tags": ["I-PER", "I-PER", "I-LOC", "O"]})
    assert objective.noted["tags I- that continue no entity"] == 2


def test_overlap_must_leave_room() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        tagger(context=10, overlap=8)
