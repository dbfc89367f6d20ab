"""What holds for every objective of the catalogue, and what `prepare` tells before training starts."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from chat_kit import template
from objective_kit import CHINESE, ENGLISH, TEXTS, kernel, rng, tokenizer

from nacre.errors import ConfigError, DataError
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.train.objective import CATALOGUE, load, prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.classify import Classify, labels_of
from nacre.train.objectives.config import (
    CausalConfig,
    ClassifyConfig,
    ContrastConfig,
    ImageConfig,
    MaskedConfig,
    PairConfig,
    Seq2SeqConfig,
    SpanConfig,
    TagConfig,
)
from nacre.train.objectives.config_align import PreferenceConfig, RewardConfig, SftConfig
from nacre.train.objectives.contrast import Contrast
from nacre.train.objectives.decoder import DecoderObjective
from nacre.train.objectives.image import ClassifyImage
from nacre.train.objectives.mlm import MaskedLM
from nacre.train.objectives.nsp import SentencePairs
from nacre.train.objectives.preference import Kto, Preference
from nacre.train.objectives.reference import Reference
from nacre.train.objectives.reward import LABELS, Reward
from nacre.train.objectives.seq2seq import Seq2Seq
from nacre.train.objectives.sft import Sft, SftSeq2Seq
from nacre.train.objectives.span import SpanCorruption
from nacre.train.objectives.tag import Tag, tags_of

PLAIN = [{"text": text} for text in TEXTS]
LABELLED = [{"text": text, "label": label} for texts, label in ((ENGLISH, "en"), (CHINESE, "zh")) for text in texts]
TAGGED = [
    {"tokens": text.split() if text in ENGLISH else list(text), "tags": ["B-S", "I-S"] + ["O"] * 99} for text in TEXTS
]
for row in TAGGED:
    row["tags"] = row["tags"][: len(row["tokens"])]
PAIRED = [{"source": english, "target": chinese} for english, chinese in zip(ENGLISH, CHINESE, strict=False)]
TALKS = [{"question": row["source"], "answer": row["target"]} for row in PAIRED]
PREFERRED = [
    {"prompt": english, "chosen": chinese, "rejected": other}
    for english, chinese, other in zip(ENGLISH, CHINESE, reversed(CHINESE), strict=False)
]
ASKED = [{"query": english, "positive": chinese} for english, chinese in zip(ENGLISH, CHINESE, strict=False)]
IMAGES = [{"pixels": np.full((4, 4), value).tolist(), "label": value % 2} for value in range(6)]


class Case(NamedTuple):
    make: Callable[[], Any]
    kernel: Callable[[], Kernel]
    rows: list[dict[str, Any]]


def _vision() -> Kernel:
    sizes = {"hidden_size": 16, "layers": 1, "heads": 2, "ffn_size": 32, "image_size": 4, "patch_size": 2}
    config = preset("vit", **sizes, channels=1, max_positions=5, head="classify", labels=("0", "1"))
    return Kernel(config, rng()).eval()


CASES = {
    "causal": Case(lambda: Causal(tokenizer("gpt"), CausalConfig(context=32)), lambda: kernel("gpt"), PLAIN + PAIRED),
    "mlm": Case(lambda: MaskedLM(tokenizer("bert"), MaskedConfig(context=16)), lambda: kernel("bert"), PLAIN),
    "nsp": Case(
        lambda: SentencePairs(tokenizer("bert"), PairConfig(context=40)), lambda: kernel("bert", "pretraining"), PLAIN
    ),
    "span": Case(lambda: SpanCorruption(tokenizer("t5"), SpanConfig(context=24)), lambda: kernel("t5"), PLAIN),
    "classify": Case(
        lambda: Classify(tokenizer("bert"), labels_of(LABELLED), ClassifyConfig(weighting="inverse")),
        lambda: kernel("bert", "classify", labels=("en", "zh")),
        LABELLED,
    ),
    "classify_image": Case(lambda: ClassifyImage(("0", "1"), ImageConfig(size=4)), _vision, IMAGES),
    "tag": Case(
        lambda: Tag(tokenizer("bert"), tags_of(TAGGED), TagConfig(context=16, overlap=4)),
        lambda: kernel("bert", "tag", labels=tags_of(TAGGED)),
        TAGGED,
    ),
    "sft": Case(
        lambda: Sft(template("chatml", tokenizer("gpt")), SftConfig(context=96)),
        lambda: kernel("gpt", vocab_size=len(template("chatml", tokenizer("gpt")).tokenizer)),
        TALKS,
    ),
    "sft_seq2seq": Case(lambda: SftSeq2Seq(tokenizer("t5"), None, SftConfig(64)), lambda: kernel("t5"), TALKS),
    "seq2seq": Case(lambda: Seq2Seq(tokenizer("t5"), Seq2SeqConfig(64, 64)), lambda: kernel("t5"), PAIRED),
    "reward": Case(
        lambda: Reward(tokenizer("gpt"), None, RewardConfig(96)),
        lambda: kernel("gpt", "classify", labels=LABELS, pooling="last"),
        PREFERRED,
    ),
    "preference": Case(
        lambda: Preference(tokenizer("gpt"), None, PreferenceConfig(context=96), reference=Reference(kernel("gpt"))),
        lambda: kernel("gpt"),
        PREFERRED,
    ),
    "preference_kto": Case(
        lambda: Kto(tokenizer("gpt"), None, PreferenceConfig("kto", context=96), reference=Reference(kernel("gpt"))),
        lambda: kernel("gpt"),
        PREFERRED,
    ),
    "contrast": Case(lambda: Contrast(tokenizer("bert"), ContrastConfig()), lambda: kernel("bert", "none"), ASKED),
}


@pytest.fixture(params=sorted(CATALOGUE))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_catalogue_names_classes_that_exist() -> None:
    assert sorted(CASES) == sorted(CATALOGUE)
    for name, case in CASES.items():
        assert type(case.make()) is load(name)
    with pytest.raises(ConfigError, match=r"did you mean 'causal'\?"):
        load("casual")


def test_loss_and_count_agree_and_train_the_body(case: Case) -> None:
    objective, model = case.make(), case.kernel()
    objective.check(model)
    examples = prepare(objective, case.rows)
    batch = objective.collate(examples, rng())
    loss = objective.loss(model, batch)
    assert loss.sum.dtype == torch.float32
    assert int(loss.count) == objective.count(batch) > 0
    assert objective.tokens(batch) > 0
    assert all(objective.length(example) > 0 for example in examples)
    loss.sum.backward()
    first = next(parameter for name, parameter in model.named_parameters() if "layers.0" in name)
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    for total, count in loss.metrics.values():
        assert not total.requires_grad
        assert -1000 < float(total) / float(count) < 200


def test_trap_01_batches_cut_differently_have_the_same_sum(case: Case) -> None:
    """The objective's side of accumulation: sums and counts add up over any cut of the same examples."""
    objective, model = case.make(), case.kernel()
    if isinstance(objective, Contrast | Kto):
        pytest.skip("what a row is compared with is its batch: the docstring says so")
    examples = prepare(objective, case.rows)
    whole = objective.loss(model, objective.collate(examples, rng()))
    stream = rng()
    parts = [objective.loss(model, objective.collate([example], stream)) for example in examples]
    assert sum(int(part.count) for part in parts) == int(whole.count)
    assert float(sum(part.sum.detach() for part in parts)) == pytest.approx(float(whole.sum.detach()), rel=1e-4)


def test_same_generator_gives_the_same_batch(case: Case) -> None:
    objective = case.make()
    examples = prepare(objective, case.rows)
    first, again = objective.collate(examples, rng(3)), objective.collate(examples, rng(3))
    for item in fields(first):
        one, other = getattr(first, item.name), getattr(again, item.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_objectives_and_batches_travel_to_workers(case: Case) -> None:
    objective = case.make()
    examples = prepare(objective, case.rows)
    there, examples_there = pickle.loads(pickle.dumps((objective, examples)))
    batch = there.collate(examples_there, rng())
    moved = batch.to("meta")
    assert type(moved) is type(batch)
    assert all(value.device.type == "meta" for value in vars(moved).values() if isinstance(value, torch.Tensor))


def test_prediction_covers_the_batch(case: Case) -> None:
    objective, model = case.make(), case.kernel()
    if isinstance(objective, DecoderObjective):
        with pytest.raises(ConfigError, match="bytes"):
            objective.predict(model, objective.collate(prepare(objective, case.rows), rng()))
        counting = replace(objective.config, count_bytes=True)
        objective = (
            Sft(objective.template, counting) if isinstance(objective, Sft) else Causal(tokenizer("gpt"), counting)
        )
    batch = objective.collate(prepare(objective, case.rows), rng())
    found = objective.predict(model, batch)
    if isinstance(found, torch.Tensor):
        assert found.shape[0] == objective.count(batch)
        if not isinstance(objective, Preference | Reward):  # these predict rewards
            assert torch.allclose(found.sum(-1), torch.ones(len(found)))
    elif hasattr(found, "tokens"):
        assert found.tokens == objective.count(batch)


def test_wrong_kernels_are_refused_with_the_reason(case: Case) -> None:
    objective = case.make()
    wrong = kernel("gpt", "none") if not isinstance(objective, ClassifyImage) else kernel("bert")
    wanting = "head"
    if isinstance(objective, Contrast):  # any head will do: it trains the body
        wrong, wanting = kernel("t5"), "layout"
    with pytest.raises(ConfigError, match=wanting):
        objective.check(wrong)


def test_kernels_that_are_too_small_are_refused() -> None:
    objective = Causal(tokenizer("gpt"), CausalConfig(context=64))
    with pytest.raises(ConfigError, match="vocab_size"):
        objective.check(kernel("gpt", vocab_size=100))
    with pytest.raises(ConfigError, match="max_positions"):
        objective.check(kernel("gpt", max_positions=32))
    with pytest.raises(ConfigError, match="layout"):
        objective.check(kernel("t5"))


@pytest.mark.parametrize("name", ["causal", "mlm", "nsp", "span", "classify", "tag", "seq2seq", "classify_image"])
def test_missing_fields_name_row_and_field(name: str) -> None:
    case = CASES[name]
    broken = [*case.rows[:2], {"other": "x"}]
    with pytest.raises(DataError, match=r"desk\.jsonl, row 3: the field '\w+'") as caught:
        prepare(case.make(), broken, "desk.jsonl")
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["classify", "seq2seq", "tag"])
def test_empty_rows_of_supervised_data_are_errors(name: str) -> None:
    case = CASES[name]
    field = {"classify": "text", "seq2seq": "target", "tag": "tokens"}[name]
    empty = {**case.rows[0], field: [] if name == "tag" else "  "}
    with pytest.raises(DataError, match=f"row 2: the field '{field}'"):
        prepare(case.make(), [case.rows[0], empty])


@pytest.mark.parametrize("name", ["causal", "mlm", "nsp", "span"])
def test_empty_texts_of_corpora_are_dropped_and_counted(name: str) -> None:
    case = CASES[name]
    objective = case.make()
    prepare(objective, [*PLAIN, {"text": ""}, {"text": " \n"}])
    assert sum(objective.dropped.values()) == 2
    with pytest.raises(DataError, match=r"none of 2 rows can be used \(2 .* empty\)"):
        prepare(case.make(), [{"text": ""}] * 2)


def test_no_rows_at_all() -> None:
    with pytest.raises(DataError, match=r"none of 0 rows can be used \(it is empty"):
        prepare(CASES["mlm"].make(), [], "void.jsonl")
