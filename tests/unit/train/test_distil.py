"""On-policy distillation, projections and caches through the loop: drawn, killed and resumed to the same weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, kernel, rng, tokenizer
from torch import Tensor

from nacre.errors import ConfigError
from nacre.kernel.model import Kernel
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import IGNORE, Loss, prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.classify import Classify, labels_of
from nacre.train.objectives.config import CausalConfig, ClassifyConfig, Seq2SeqConfig
from nacre.train.objectives.config_align import DistilConfig, LayerMatch, OnPolicy
from nacre.train.objectives.distil import Distil, Teacher, divergence
from nacre.train.objectives.layer_match import attach, pairs
from nacre.train.objectives.onpolicy import prompts_of, written
from nacre.train.objectives.seq2seq import Seq2Seq

PAIRED = [{"source": english, "target": chinese} for english, chinese in zip(ENGLISH, CHINESE, strict=False)]
LABELLED = [{"text": text, "label": label} for texts, label in ((ENGLISH, "en"), (CHINESE, "zh")) for text in texts]


class Killed(BaseException):
    pass


class Fatal(Distil):
    """Dies at the n-th batch."""

    left: int | None = None

    def training_loss(self, kernel: Kernel, batch: Any) -> Loss:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed
        return super().training_loss(kernel, batch)


def writer(packing: Any = "none") -> Causal:
    return Causal(tokenizer("gpt"), CausalConfig(context=64, packing=packing))


def teacher(style: str = "gpt", **changes: object) -> Kernel:
    other = kernel(style, **changes)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng(5)) * 0.1)
    return other


def run(folder: Path, objective: Distil, student: Kernel, rows: Any, **options: Any) -> dict[str, Tensor]:
    objective.check(student)
    base = {"max_steps": 6, "batch_size": 4, "micro_batch": 2, "lr": 0.01, "checkpoint_every": 2, "log_every": 2}
    train(student, objective, prepare(objective, rows), TrainConfig.of(**{**base, **options}), folder=folder)
    return dict(student.named_parameters())


@pytest.mark.parametrize("packing", ["none", "documents"])
def test_prompts_are_what_stands_before_the_last_answer(packing: Any) -> None:
    objective = writer(packing)
    batch = objective.collate(prepare(objective, PAIRED), rng())
    words = tokenizer("gpt")
    asked = [words.decode(ids) for ids in prompts_of(batch)]
    assert sorted(one.strip() for one in asked) == sorted(row["source"] for row in PAIRED)


def test_own_answers_are_trained_and_prompts_are_not() -> None:
    objective, student = writer(), kernel("gpt")
    batch = objective.collate(prepare(objective, PAIRED)[:3], rng())
    torch.manual_seed(3)
    own = written(objective, student, batch, OnPolicy(max_new_tokens=7))
    assert own is not None
    asked = prompts_of(batch)
    for ids, targets, prompt in zip(own.ids, own.targets, asked, strict=True):
        assert ids[: len(prompt)].tolist() == prompt
        assert (targets[: len(prompt) - 1] == IGNORE).all()
        assert 1 <= int((targets != IGNORE).sum()) <= 7
    torch.manual_seed(3)
    again = written(objective, student, batch, OnPolicy(max_new_tokens=7))
    assert again is not None
    assert torch.equal(own.ids, again.ids)


def test_the_loss_of_own_answers_is_the_divergence_over_them() -> None:
    objective, student, guide = (
        writer(),
        kernel("gpt", dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0),
        teacher(),
    )
    how = DistilConfig("reverse", temperature=1.5, on_policy=OnPolicy(1.0, max_new_tokens=6))
    distil = Distil(objective, Teacher(guide), how)
    distil.check(student)
    batch = objective.collate(prepare(objective, PAIRED)[:3], rng())
    student.train()
    torch.manual_seed(1)
    loss = distil.loss(student, batch)
    torch.manual_seed(1)
    torch.rand(())
    assert how.on_policy is not None
    own = written(objective, student, batch, how.on_policy)
    mine, theirs = objective.outputs(student, own), objective.outputs(guide, own)
    trained = mine.targets != IGNORE
    wanted = 1.5**2 * divergence(mine.logits[trained], theirs.logits[trained], how).mean()
    torch.testing.assert_close(loss.mean, wanted)
    assert int(loss.count) == objective.count(batch)
    assert "own_soft" in loss.metrics
    assert student.training


def test_encoder_decoders_answer_their_sources() -> None:
    objective = Seq2Seq(tokenizer("t5"), Seq2SeqConfig(64, 64))
    student = kernel("t5", decoder_start_id=objective.start_id, eos_id=objective.eos_id).train()
    distil = Distil(objective, Teacher(teacher("t5")), DistilConfig(on_policy=OnPolicy(1.0, 5)))
    distil.check(student)
    loss = distil.loss(student, objective.collate(prepare(objective, PAIRED)[:2], rng()))
    assert torch.isfinite(loss.sum)
    assert float(loss.sum.detach()) > 0


def test_only_what_writes_learns_on_policy() -> None:
    objective = Classify(tokenizer("bert"), labels_of(LABELLED))
    student = kernel("bert", "classify", labels=("en", "zh"))
    with pytest.raises(ConfigError, match="writes text"):
        Distil(objective, Teacher(student), DistilConfig(on_policy=OnPolicy())).check(student)


@pytest.mark.parametrize("kill", [3, 9])
def test_trap_44_killed_while_learning_from_its_own_answers_and_resumed(tmp_path: Path, kill: int) -> None:
    how = DistilConfig("jensen", on_policy=OnPolicy(0.5, max_new_tokens=5))

    def made() -> tuple[Fatal, Kernel]:
        return Fatal(writer(), Teacher(teacher()), how), kernel("gpt", dropout=0.2)

    whole = run(tmp_path / "a", *made(), PAIRED)
    objective, student = made()
    objective.left = kill
    with pytest.raises(Killed):
        run(tmp_path / "b", objective, student, PAIRED)
    resumed = run(tmp_path / "b", *made(), PAIRED)
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def test_trap_44_projections_are_resumed_too(tmp_path: Path) -> None:
    guide = teacher("bert", head="classify", labels=("en", "zh"), hidden_size=48, layers=4)
    match = LayerMatch("even")

    def made() -> tuple[Fatal, Kernel]:
        student = kernel("bert", "classify", labels=("en", "zh"), dropout=0.2)
        attach(student, guide.config, match, rng())
        inner = Classify(tokenizer("bert"), labels_of(LABELLED))
        return Fatal(inner, Teacher(guide), DistilConfig(hidden=match)), student

    before = {name: weight.clone() for name, weight in made()[1].named_parameters()}
    whole = run(tmp_path / "a", *made(), LABELLED)
    objective, student = made()
    objective.left = 7
    with pytest.raises(Killed):
        run(tmp_path / "b", objective, student, LABELLED)
    resumed = run(tmp_path / "b", *made(), LABELLED)
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    assert not torch.equal(whole["projections.layer_0"], before["projections.layer_0"])


def test_a_teacher_is_asked_once_over_kills_and_by_its_own_tokenizer(tmp_path: Path) -> None:
    labels = labels_of(LABELLED)
    guide = teacher("bert", head="classify", labels=("zh", "en"))
    theirs = Classify(tokenizer("bert"), labels)
    inner = Classify(tokenizer("llama"), labels)  # another vocabulary altogether
    student = kernel("bert", "classify", labels=("en", "zh"), vocab_size=420).train()
    words = Teacher(guide, tokenizer("bert"), theirs)
    with pytest.raises(ConfigError, match="cache"):
        Distil(inner, words)
    distil = Distil(inner, words, DistilConfig(cache=True), folder=tmp_path)
    distil.check(student)
    examples = prepare(distil, LABELLED)
    batch = distil.collate(examples[:4], rng())
    with torch.no_grad():
        wanted = theirs.logits(guide, theirs.collate(prepare(theirs, LABELLED)[:4], rng()))[:, [1, 0]]
    torch.testing.assert_close(batch.logits, wanted, rtol=1e-4, atol=1e-5)
    assert batch.ids.shape[0] == 4
    again = Distil(inner, words, DistilConfig(cache=True), folder=tmp_path)
    again.check(student)
    guide.forward = None  # type: ignore[assignment,method-assign]
    assert torch.equal(again.collate(prepare(again, LABELLED)[:4], rng()).logits, batch.logits)


def test_rows_that_change_have_no_cache() -> None:
    inner = Classify(tokenizer("bert"), labels_of(LABELLED), ClassifyConfig(token_dropout=0.1))
    student = kernel("bert", "classify", labels=("en", "zh"))
    distil = Distil(inner, Teacher(student), DistilConfig(cache=True))
    distil.check(student)
    with pytest.raises(ConfigError, match="stay as they are"):
        prepare(distil, LABELLED)


def test_evaluations_are_those_of_the_task() -> None:
    inner = Classify(tokenizer("bert"), labels_of(LABELLED))
    student = kernel("bert", "classify", labels=("en", "zh"))
    distil = Distil(inner, Teacher(copy.deepcopy(student)))
    batch = inner.collate(prepare(inner, LABELLED)[:4], rng())
    assert distil.loss(student, batch).sum.item() == inner.loss(student, batch).sum.item()


def test_maps_of_layers() -> None:
    small, large = kernel("bert").config, kernel("bert", layers=6).config
    assert pairs(LayerMatch("even"), small, large) == {0: 2, 1: 5}
    assert pairs(LayerMatch("last"), small, large) == {1: 5}
    assert pairs(LayerMatch({0: 4}), small, large) == {0: 4}
    with pytest.raises(ConfigError, match="layer 6 of the teacher"):
        pairs(LayerMatch({0: 6}), small, large)
    with pytest.raises(ConfigError, match="more layers"):
        pairs(LayerMatch("even"), large, small)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"share": 1.5}, {"share": 0.0}, {"beta": 1.0}, {"cache": True, "hidden": LayerMatch()}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        DistilConfig(**wrong)
