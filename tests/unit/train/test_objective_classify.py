"""Classification: labels, imbalance, and what is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_kit import CHINESE, ENGLISH, TEXTS, kernel, rng, tokenizer

from nacre.errors import ConfigError, DataError
from nacre.train.objective import prepare
from nacre.train.objectives.classify import Classify, labels_of
from nacre.train.objectives.config import ClassifyConfig, ClassLoss, ImageConfig
from nacre.train.objectives.image import ClassifyImage

ROWS = [{"text": text, "label": label} for texts, label in ((ENGLISH, "en"), (CHINESE, "zh")) for text in texts]
LABELS = ("en", "zh")


def classify(**config: object) -> Classify:
    return Classify(tokenizer("bert"), LABELS, ClassifyConfig(**config))  # type: ignore[arg-type]


def test_labels_unseen_in_training_are_refused_with_the_closest_one() -> None:
    with pytest.raises(DataError, match=r"test\.jsonl, row 2: the label 'zhh' is not among the 2 classes") as caught:
        prepare(classify(), [ROWS[0], {"text": "x", "label": "zhh"}], "test.jsonl", training=False)
    assert "did you mean 'zh'?" in caught.value.remedy


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match="two or more"):
        Classify(tokenizer("bert"), ["en"])
    with pytest.raises(DataError, match=r"train: all 5 training rows have the one label 'en'"):
        prepare(classify(), ROWS[:5], "train")
    assert prepare(classify(), ROWS[:5], "test", training=False)


def test_labels_of_rows() -> None:
    assert labels_of(ROWS) == LABELS
    assert labels_of([{"label": n} for n in (10, 9, 2)]) == ("2", "9", "10")
    with pytest.raises(DataError, match="row 2: the field 'label'"):
        labels_of([{"label": 0}, {"text": "x"}])


def test_weights_come_from_the_training_rows_alone() -> None:
    objective = classify(weighting="inverse")
    prepare(objective, ROWS)
    weights = objective.how.weights
    assert weights is not None
    assert weights[0] * 5 == pytest.approx(weights[1] * 4)
    assert weights[0] * 5 + weights[1] * 4 == pytest.approx(9)
    prepare(objective, ROWS[:2], training=False)
    assert objective.how.weights == weights


def test_rare_classes_weigh_more_in_the_gradient() -> None:
    model = kernel("bert", "classify", labels=LABELS)
    plain, weighted = classify(), classify(loss=ClassLoss(weights=(0.5, 3.0)))
    examples = prepare(plain, ROWS)
    for example in examples:
        batch = plain.collate([example], rng())
        ratio = weighted.loss(model, batch).sum / plain.loss(model, batch).sum
        assert ratio.item() == pytest.approx((0.5, 3.0)[example.label], rel=1e-5)


def test_trap_04_padding_changes_no_probability() -> None:
    objective, model = classify(), kernel("bert", "classify", labels=LABELS)
    examples = prepare(objective, ROWS)
    together = objective.predict(model, objective.collate(examples, rng()))
    alone = torch.cat([objective.predict(model, objective.collate([one], rng())) for one in examples])
    assert torch.allclose(together, alone, atol=1e-6)


def test_long_texts_are_cut_at_the_end_and_counted_and_keep_their_frame() -> None:
    objective = classify(context=8)
    examples = prepare(objective, ROWS)
    assert objective.truncated == {"texts cut at the context": len(TEXTS)}
    for example in examples:
        assert len(example.ids) == 8
        assert (example.ids[0], example.ids[-1]) == (objective.tokenizer.cls_id, objective.tokenizer.sep_id)


def test_pairs_of_texts_have_token_types() -> None:
    objective = classify(context=24)
    pair = {"text": ENGLISH[0], "text_pair": CHINESE[0], "label": "en"}
    batch = objective.collate(prepare(objective, [pair, *ROWS]), rng())
    assert batch.token_types is not None
    assert batch.token_types[0].max() == 1
    assert not batch.token_types[1:].any()
    assert objective.truncated["pairs of texts cut at the context"] == 1


def test_decoders_classify_at_their_last_real_token() -> None:
    objective = Classify(tokenizer("gpt"), LABELS)
    model = kernel("gpt").with_head("classify", labels=LABELS, pooling="last", generator=rng())
    objective.check(model)
    examples = prepare(objective, ROWS)
    together = objective.predict(model, objective.collate(examples, rng()))
    alone = torch.cat([objective.predict(model, objective.collate([one], rng())) for one in examples])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_head_must_name_the_same_classes() -> None:
    with pytest.raises(ConfigError, match="classes"):
        classify().check(kernel("bert", "classify", labels=("zh", "en")))


def test_choices_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="both set"):
        ClassLoss(label_smoothing=0.1, focal_gamma=2.0)
    with pytest.raises(ConfigError, match="both set"):
        classify(weighting="inverse", loss=ClassLoss(weights=(1.0, 1.0)))
    with pytest.raises(ConfigError, match="3 class weights for 2"):
        classify(loss=ClassLoss(weights=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize("pixels", [None, [[1, 2], [3]], [[1.0] * 4] * 3, "abc"])
def test_images_of_another_shape_are_refused(pixels: object) -> None:
    objective = ClassifyImage(("0", "1"), ImageConfig(size=4))
    with pytest.raises(DataError, match="row 1: the field 'pixels'"):
        prepare(objective, [{"pixels": pixels, "label": 0}])


def test_images_are_normalised() -> None:
    objective = ClassifyImage(("0", "1"), ImageConfig(size=2, mean=8.0, std=4.0))
    example = objective.encode({"pixels": [[0, 8], [12, 16]], "label": 1})
    assert np.array_equal(example.pixels, np.array([[[-2, 0], [1, 2]]], dtype=np.float32))


def test_dropout_of_subwords_and_tokens_acts_on_training_examples_only() -> None:
    from nacre.data.tokenizer import TokenizerConfig, train

    with tempfile.TemporaryDirectory() as folder:
        config = TokenizerConfig(algorithm="wordpiece", style="bert", vocab_size=300, min_frequency=1)
        tokenizer = train(["unbelievable deliveries were delayed"] * 8, config, Path(folder))
    objective = Classify(tokenizer, ("a", "b"), ClassifyConfig(subword_dropout=0.5, token_dropout=0.3))
    rows = [{"text": "unbelievable deliveries", "label": label} for label in ("a", "b")]
    plain = [objective.encode(row) for row in rows]
    trained = objective.fit(plain)
    drawn = [objective.collate(trained, torch.Generator().manual_seed(seed)).ids for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].shape != drawn[2].shape or not torch.equal(drawn[0], drawn[2])
    assert tokenizer.mask_id in drawn[0].flatten().tolist() + drawn[2].flatten().tolist()
    untouched = objective.collate(plain, torch.Generator().manual_seed(1)).ids
    assert untouched[0, :4].tolist() == tokenizer.encode("unbelievable deliveries")
    for seed in range(20):
        ids = objective.collate(trained, torch.Generator().manual_seed(seed)).ids
        assert (ids == tokenizer.cls_id).sum() == (ids == tokenizer.sep_id).sum() == 2, (
            "special tokens are never hidden"
        )
