"""Distillation against TRL and against formulas written out here, in float64, values and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, kernel, rng, tokenizer
from torch import Tensor

from nacre.errors import ConfigError
from nacre.kernel.model import Kernel
from nacre.train.objective import IGNORE, Outputs, Predictive, prepare
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.classify import Classify, labels_of
from nacre.train.objectives.config import CausalConfig, MaskedConfig, Seq2SeqConfig
from nacre.train.objectives.config_align import DistilConfig, LayerMatch
from nacre.train.objectives.distil import Distil, Teacher, divergence
from nacre.train.objectives.layer_match import PROJECTIONS, attach, detach
from nacre.train.objectives.mlm import MaskedLM
from nacre.train.objectives.seq2seq import Seq2Seq

CLOSE = {"rtol": 1e-6, "atol": 1e-9}
LABELLED = [{"text": text, "label": label} for texts, label in ((ENGLISH, "en"), (CHINESE, "zh")) for text in texts]
PAIRED = [{"source": english, "target": chinese} for english, chinese in zip(ENGLISH, CHINESE, strict=False)]
QUIET = dict.fromkeys(("dropout", "embedding_dropout", "attention_dropout", "ffn_dropout", "head_dropout"), 0.0)
Case = tuple[Predictive[Any, Any], Kernel, Kernel, Any]


def moved(model: Kernel, seed: int) -> Kernel:
    """The kernel with other weights, so that it disagrees with itself."""
    other = copy.deepcopy(model)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn(weight.shape, generator=draws, dtype=weight.dtype) * 0.2)
    return other


def classifier() -> Case:
    objective = Classify(tokenizer("bert"), labels_of(LABELLED))
    model = kernel("bert", "classify", labels=("en", "zh"), **QUIET).double().train()
    return objective, model, moved(model, 1), objective.collate(prepare(objective, LABELLED)[:5], rng())


def writer() -> Case:
    objective = Causal(tokenizer("gpt"), CausalConfig(context=48))
    model = kernel("gpt", **QUIET).double().train()
    return (
        objective,
        model,
        moved(model, 1),
        objective.collate(prepare(objective, [{"text": t} for t in ENGLISH]), rng()),
    )


def masked() -> Case:
    objective = MaskedLM(tokenizer("bert"), MaskedConfig(context=48))
    model = kernel("bert", "mlm", **QUIET).double().train()
    return (
        objective,
        model,
        moved(model, 1),
        objective.collate(prepare(objective, [{"text": t} for t in ENGLISH]), rng()),
    )


def translator() -> Case:
    objective = Seq2Seq(tokenizer("t5"), Seq2SeqConfig(64, 64))
    model = kernel("t5", **QUIET).double().train()
    return objective, model, moved(model, 1), objective.collate(prepare(objective, PAIRED)[:3], rng())


CASES: dict[str, Callable[[], Case]] = {
    "classify": classifier,
    "causal": writer,
    "mlm": masked,
    "seq2seq": translator,
}
DIRECTIONS = [
    DistilConfig("forward", temperature=1.0),
    DistilConfig("reverse", temperature=3.0),
    DistilConfig("jensen", beta=0.2, temperature=2.0),
    DistilConfig("jensen", beta=0.7, temperature=1.0),
]


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def formula(student: Tensor, teacher: Tensor, how: DistilConfig) -> Tensor:
    """The divergences with probabilities written out."""
    q, p = (student / how.temperature).softmax(-1), (teacher / how.temperature).softmax(-1)
    if how.direction == "forward":
        return (p * (p / q).log()).sum(-1)
    if how.direction == "reverse":
        return (q * (q / p).log()).sum(-1)
    mixture = how.beta * p + (1 - how.beta) * q
    return how.beta * (p * (p / mixture).log()).sum(-1) + (1 - how.beta) * (q * (q / mixture).log()).sum(-1)


def gradients(model: Kernel, loss: Tensor) -> dict[str, Tensor]:
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: grad for name, grad in zip(named, found, strict=True) if grad is not None}


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("how", DIRECTIONS)
def test_divergences_equal_their_formulas(how: DistilConfig) -> None:
    student, teacher = logits(7, 11).requires_grad_(), logits(7, 11, seed=1)
    ours, theirs = divergence(student, teacher, how), formula(student, teacher, how)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    mine, wanted = (torch.autograd.grad(one.sum(), student)[0] for one in (ours, theirs))
    torch.testing.assert_close(mine, wanted, **CLOSE)


@pytest.mark.parametrize("how", DIRECTIONS)
def test_the_loss_equals_gkd_of_trl(how: DistilConfig) -> None:
    trainer = pytest.importorskip("trl.experimental.gkd.gkd_trainer").GKDTrainer
    objective, student, teacher, batch = writer()
    ours = Distil(objective, Teacher(teacher), DistilConfig(how.direction, how.beta, how.temperature, share=1.0))
    ours.check(student)
    loss = ours.loss(student, batch)
    beta = {"forward": 0.0, "reverse": 1.0, "jensen": how.beta}[how.direction]
    shape = (*batch.ids.shape, -1)
    mine = objective.outputs(student, batch).logits.view(shape)
    told = objective.outputs(teacher, batch).logits.view(shape).detach()
    theirs = trainer.generalized_jsd_loss(mine, told, batch.targets, beta, how.temperature) * how.temperature**2
    torch.testing.assert_close(loss.mean, theirs, **CLOSE)
    found, wanted = gradients(student, loss.mean), gradients(student, theirs)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], **CLOSE)


@pytest.mark.parametrize("how", DIRECTIONS[:3])
def test_soft_and_hard_loss_are_mixed_as_said(case: Case, how: DistilConfig) -> None:
    objective, student, teacher, batch = case
    distil = Distil(objective, Teacher(teacher), DistilConfig(how.direction, how.beta, how.temperature, share=0.3))
    distil.check(student)
    loss = distil.loss(student, batch)
    mine, told = objective.outputs(student, batch), objective.outputs(teacher, batch)
    trained = mine.targets != IGNORE
    soft = formula(mine.logits[trained], told.logits[trained].detach(), how).sum()
    wanted = 0.7 * objective.loss(student, batch).sum + 0.3 * how.temperature**2 * soft
    torch.testing.assert_close(loss.sum, wanted, **CLOSE)
    assert int(loss.count) == distil.count(batch) == int(trained.sum())
    found, expected = gradients(student, loss.sum), gradients(student, wanted)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)
    torch.testing.assert_close(loss.metrics["soft"][0], soft, **CLOSE)


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_hidden_states_equal_their_formula(case: Case, kind: Any) -> None:
    objective, student, teacher, batch = case
    how = DistilConfig(share=0.5, hidden=LayerMatch({1: 0}, kind, weight=3.0))
    distil, plain = Distil(objective, Teacher(teacher), how), Distil(objective, Teacher(teacher), DistilConfig())
    for one in (distil, plain):
        one.check(student)
    states: dict[str, Tensor] = {}
    for name, model, layer in (("mine", student, 1), ("theirs", teacher, 0)):
        stack = model.decoder or model.encoder
        assert stack is not None
        hook = stack.layers[layer].register_forward_hook(lambda _, __, out, name=name: states.update({name: out}))
        outputs = objective.outputs(model, batch)
        hook.remove()
    mine, theirs = states["mine"], states["theirs"].detach()
    if kind == "mse":
        distance = ((mine - theirs) ** 2).mean(-1)
    else:
        distance = 1 - (mine * theirs).sum(-1) / (mine.norm(dim=-1) * theirs.norm(dim=-1))
    wanted = plain.loss(student, batch).sum + 3.0 * _over_trained(distance, outputs, batch)
    loss = distil.loss(student, batch)
    torch.testing.assert_close(loss.sum, wanted, **CLOSE)
    found, expected = gradients(student, loss.sum), gradients(student, wanted)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)


def _over_trained(distance: Tensor, outputs: Outputs, batch: Any) -> Tensor:
    """Summed over trained tokens; over rows that are trained as one, of the mean over their real tokens."""
    if hasattr(batch, "labels") and not hasattr(batch, "picks"):
        return sum((row[keep].mean() for row, keep in zip(distance, batch.mask, strict=True)), torch.zeros(()))
    if hasattr(batch, "picks"):
        return distance.flatten()[batch.picks[batch.targets != IGNORE]].sum()
    return distance.flatten()[outputs.targets != IGNORE].sum()


@pytest.mark.parametrize("make", [classifier, writer])
def test_gradients_do_not_depend_on_how_a_batch_is_cut(make: Callable[[], Case]) -> None:
    objective, student, teacher, _ = make()
    rows = LABELLED if isinstance(objective, Classify) else [{"text": text} for text in ENGLISH]
    distil = Distil(objective, Teacher(teacher), DistilConfig(hidden=LayerMatch("even", "cosine")))
    distil.check(student)
    examples = prepare(distil, rows)[:4]

    def whole(*parts: slice) -> dict[str, Tensor]:
        losses = [distil.loss(student, distil.collate(examples[part], rng())) for part in parts]
        return gradients(student, sum(one.sum for one in losses) / sum(one.count for one in losses))  # type: ignore[arg-type]

    once, cut = whole(slice(0, 4)), whole(slice(0, 1), slice(1, 4))
    for name in once:
        torch.testing.assert_close(cut[name], once[name], **CLOSE)


def test_trap_42_the_direction_is_what_its_name_says() -> None:
    """Where the teacher has two answers and the student one: the forward KL pays for the answer that it lacks."""
    teacher, student = torch.tensor([[0.5, 0.5, 1e-4]]).log(), torch.tensor([[1.0, 1e-4, 1e-4]]).log()
    forward, reverse = (
        float(divergence(student, teacher, DistilConfig(one, temperature=1.0)))  # type: ignore[arg-type]
        for one in ("forward", "reverse")
    )
    assert forward == pytest.approx(0.5 * torch.tensor(0.5 / 1e-4).log().item() + 0.5 * -0.6931, abs=2e-3)
    assert reverse == pytest.approx(0.6931, abs=2e-3)


def test_trap_42_gradients_keep_their_size_at_high_temperature() -> None:
    """T^2 times a gradient that falls with 1 / T^2 (Hinton et al. 2015, section 2.1): without it 400 times smaller."""
    sizes = {}
    for temperature in (20.0, 40.0):
        objective, student, teacher, batch = classifier()
        distil = Distil(objective, Teacher(teacher), DistilConfig(temperature=temperature, share=1.0))
        distil.check(student)
        found = gradients(student, distil.loss(student, batch).sum)
        sizes[temperature] = float(torch.cat([one.flatten() for one in found.values()]).norm())
    assert sizes[40.0] == pytest.approx(sizes[20.0], rel=0.05)


def test_trap_42_what_is_not_trained_is_not_distilled() -> None:
    objective, student, teacher, batch = writer()
    assert (batch.targets == IGNORE).any()
    distil = Distil(objective, Teacher(teacher), DistilConfig(share=1.0))
    distil.check(student)
    before = distil.loss(student, batch)
    asked = objective.outputs

    def spoilt(model: Kernel, given: Any) -> Outputs:
        found = asked(model, given)
        return Outputs(torch.where((found.targets == IGNORE)[:, None], 50.0, found.logits), found.targets)

    objective.outputs = spoilt  # type: ignore[method-assign]
    after = distil.loss(student, batch)
    assert after.sum.item() == before.sum.item()
    assert int(after.count) == int((batch.targets != IGNORE).sum())


def test_trap_42_another_vocabulary_is_refused() -> None:
    objective, student, _, _ = writer()
    larger = kernel("gpt", vocab_size=student.config.vocab_size + 40).double()
    with pytest.raises(ConfigError, match="another vocabulary"):
        Distil(objective, Teacher(larger)).check(student)
    with pytest.raises(ConfigError, match="another vocabulary") as refused:
        Distil(objective, Teacher(student, tokenizer("llama"))).check(student)
    assert "teach.collect" in refused.value.remedy


def test_tables_that_are_padded_differently_share_what_they_both_have() -> None:
    objective, student, _, batch = writer()
    larger = kernel("gpt", vocab_size=student.config.vocab_size + 40, **QUIET).double()
    distil = Distil(objective, Teacher(larger, tokenizer("gpt")), DistilConfig(share=1.0, temperature=1.0))
    distil.check(student)
    n = student.config.vocab_size
    mine, told = objective.outputs(student, batch), objective.outputs(larger, batch)
    trained = mine.targets != IGNORE
    wanted = formula(mine.logits[trained], told.logits[trained][:, :n], distil.config).sum()
    torch.testing.assert_close(distil.loss(student, batch).sum, wanted, **CLOSE)


def test_trap_42_the_teacher_is_at_rest_and_stays_as_it_is() -> None:
    objective, student, _, batch = writer()
    teacher = moved(kernel("gpt", dropout=0.5, embedding_dropout=0.5).double(), 1).train()
    before = copy.deepcopy(teacher.state_dict())
    distil = Distil(objective, Teacher(teacher), DistilConfig(hidden=LayerMatch()))
    distil.check(student)
    assert not teacher.training
    first, second = distil.loss(student, batch), distil.loss(student, batch)
    assert first.sum.item() == second.sum.item()
    first.sum.backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_classes_in_another_order_are_matched_by_name() -> None:
    objective, student, teacher, batch = classifier()
    turned = copy.deepcopy(teacher)
    turned.config = turned.config.replace(labels=("zh", "en"))
    assert turned.classifier is not None
    with torch.no_grad():
        for weight in turned.classifier.parameters():
            weight.copy_(weight.flip(0))
    losses = []
    for one in (teacher, turned):
        distil = Distil(objective, Teacher(one))
        distil.check(student)
        losses.append(float(distil.loss(student, batch).sum))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    turned.config = turned.config.replace(labels=("zh", "fr"))
    with pytest.raises(ConfigError, match=r"lacks \['en'\]"):
        Distil(objective, Teacher(turned)).check(student)


def test_widths_that_differ_are_projected() -> None:
    objective, student, _, batch = classifier()
    wide = kernel("bert", "classify", labels=("en", "zh"), hidden_size=48, layers=4, heads=2).double()
    match = LayerMatch("even")
    assert attach(student, wide.config, match, rng())
    distil = Distil(objective, Teacher(wide), DistilConfig(hidden=match))
    distil.check(student)
    loss = distil.loss(student, batch)
    named = dict(student.named_parameters())
    assert {name for name in named if name.startswith(PROJECTIONS)} == {
        f"{PROJECTIONS}.layer_0",
        f"{PROJECTIONS}.layer_1",
    }
    found = gradients(student, loss.sum)
    assert all(float(found[f"{PROJECTIONS}.layer_{one}"].norm()) > 0 for one in (0, 1))
    assert not any(name.startswith(PROJECTIONS) for name in student.state_dict())
    detach(student)
    assert not hasattr(student, PROJECTIONS)


def test_a_teacher_asked_once_says_the_same() -> None:
    objective, student, teacher, _ = classifier()
    losses = []
    for cache in (False, True):
        distil = Distil(objective, Teacher(teacher), DistilConfig(cache=cache))
        distil.check(student)
        batch = distil.collate(prepare(distil, LABELLED)[2:6], rng())
        losses.append(distil.loss(student, batch))
        assert distil.count(batch) == 4
    assert float(losses[0].sum) == pytest.approx(float(losses[1].sum), rel=1e-6)  # kept in float32
