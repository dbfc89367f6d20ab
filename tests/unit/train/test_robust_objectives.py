"""FGM, PGD, FreeLB, R-Drop and EWC against their formulas, written out once more here in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_kit import CHINESE, ENGLISH, kernel, rng, tokenizer
from torch import Tensor

from nacre.errors import ConfigError
from nacre.kernel.model import Kernel
from nacre.train.objective import IGNORE, Batch, Loss, Objective, prepare
from nacre.train.objectives.adversarial import Adversarial
from nacre.train.objectives.anchored import Anchor, Anchored, anchor
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.classify import Classify, labels_of
from nacre.train.objectives.config import AdversarialConfig, CausalConfig, RDropConfig, Seq2SeqConfig
from nacre.train.objectives.mlm import MaskedLM
from nacre.train.objectives.rdrop import RDrop
from nacre.train.objectives.seq2seq import Seq2Seq

LABELLED = [{"text": text, "label": label} for texts, label in ((ENGLISH, "en"), (CHINESE, "zh")) for text in texts]
PAIRED = [{"source": english, "target": chinese} for english, chinese in zip(ENGLISH, CHINESE, strict=False)]
Case = tuple[Objective[Any, Any], Kernel, Any]
QUIET = dict.fromkeys(("dropout", "embedding_dropout", "attention_dropout", "ffn_dropout", "head_dropout"), 0.0)


def classifier(**changes: object) -> Case:
    objective = Classify(tokenizer("bert"), labels_of(LABELLED))
    model = kernel("bert", "classify", labels=("en", "zh"), **(QUIET | changes)).double().train()
    return objective, model, objective.collate(prepare(objective, LABELLED)[:4], rng())


def writer() -> Case:
    objective = Causal(tokenizer("gpt"), CausalConfig(context=48))
    model = kernel("gpt", **QUIET).double().train()
    return objective, model, objective.collate(prepare(objective, [{"text": text} for text in ENGLISH])[:3], rng())


def translator() -> Case:
    objective = Seq2Seq(tokenizer("t5"), Seq2SeqConfig(64, 64))
    model = kernel("t5", **QUIET).double().train()
    return objective, model, objective.collate(prepare(objective, PAIRED)[:3], rng())


CASES: dict[str, Callable[[], Case]] = {"classify": classifier, "causal": writer, "seq2seq": translator}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


class Changed:
    """The kernel with its first embeddings given outright: what the wrappers' hook is compared with."""

    def __init__(self, model: Kernel, objective: Objective[Any, Any], batch: Any) -> None:
        self.model, self.objective, self.batch = model, objective, batch
        assert model.embed.tokens is not None
        self.plain = model.embed.tokens.weight[batch.ids]

    def loss(self, change: Tensor) -> Tensor:
        tokens = self.model.embed.tokens
        assert tokens is not None
        usual, calls = tokens.forward, []

        def forward(ids: Tensor) -> Tensor:
            calls.append(ids)
            return self.plain + change if len(calls) == 1 else usual(ids)

        tokens.forward = forward  # type: ignore[method-assign]
        try:
            return self.objective.loss(self.model, self.batch).sum
        finally:
            del tokens.forward

    def slope(self, change: Tensor) -> Tensor:
        change = change.detach().requires_grad_(True)
        return torch.autograd.grad(self.loss(change), change)[0]


def lengths(values: Tensor) -> Tensor:
    return values.square().sum(dim=(1, 2), keepdim=True).sqrt()


def share_of(loss: Loss) -> float:
    total, count = loss.metrics["attack_share"]
    return float(total / count)


def gradients(model: Kernel, total: Tensor) -> dict[str, Tensor]:
    names, weights = zip(*((name, one) for name, one in model.named_parameters() if one.requires_grad), strict=True)
    found = torch.autograd.grad(total, weights, allow_unused=True, retain_graph=True)
    return {name: one for name, one in zip(names, found, strict=True) if one is not None}


def same(model: Kernel, total: Tensor, expected: Tensor) -> None:
    assert torch.allclose(total, expected, rtol=1e-9, atol=1e-9)
    mine, theirs = gradients(model, total), gradients(model, expected)
    assert mine.keys() == theirs.keys()
    for name, gradient in mine.items():
        assert torch.allclose(gradient, theirs[name], rtol=1e-6, atol=1e-8), name


def test_fgm_is_the_papers_formula(case: Case) -> None:
    objective, model, batch = case
    loss = Adversarial(objective, AdversarialConfig("fgm", epsilon=0.7, weight=0.5)).loss(model, batch)
    changed = Changed(model, objective, batch)
    slope = changed.slope(torch.zeros_like(changed.plain))
    clean = objective.loss(model, batch)
    same(model, loss.sum, clean.sum + 0.5 * changed.loss(0.7 * slope / lengths(slope)))
    assert int(loss.count) == int(clean.count)
    assert float(loss.metrics["clean_loss"][0]) == pytest.approx(float(clean.sum.detach()))
    assert float(loss.metrics["adversarial_loss"][0]) > float(loss.metrics["clean_loss"][0])
    assert share_of(loss) == pytest.approx(float((0.7 / lengths(changed.plain)).mean()))


def test_pgd_stays_in_its_ball(case: Case) -> None:
    objective, model, batch = case
    how = AdversarialConfig("pgd", epsilon=0.5, alpha=0.3, steps=3)
    loss = Adversarial(objective, how).loss(model, batch)
    changed = Changed(model, objective, batch)
    change = torch.zeros_like(changed.plain)
    for _ in range(3):
        slope = changed.slope(change)
        change = change + 0.3 * slope / lengths(slope)
        change = torch.where(lengths(change) > 0.5, change * 0.5 / lengths(change), change).detach()
    assert torch.all(lengths(change) <= 0.5 + 1e-9)
    same(model, loss.sum, objective.loss(model, batch).sum + changed.loss(change))
    assert share_of(loss) == pytest.approx(float((lengths(change) / lengths(changed.plain)).mean()))


def test_freelb_trains_on_every_pass(case: Case) -> None:
    objective, model, batch = case
    torch.manual_seed(3)
    loss = Adversarial(objective, AdversarialConfig("freelb", epsilon=0.4, alpha=0.2, steps=3)).loss(model, batch)
    changed = Changed(model, objective, batch)
    torch.manual_seed(3)
    side = 0.4 / (changed.plain.shape[1] * changed.plain.shape[2]) ** 0.5
    change = torch.empty_like(changed.plain).uniform_(-side, side).detach()
    passes = []
    for _ in range(3):
        passes.append(changed.loss(change))
        last = change
        slope = changed.slope(change)
        change = change + 0.2 * slope / lengths(slope)
        change = torch.where(lengths(change) > 0.4, change * 0.4 / lengths(change), change).detach()
    same(model, loss.sum, torch.stack(passes).mean())
    assert share_of(loss) == pytest.approx(float((lengths(last) / lengths(changed.plain)).mean()))


@pytest.mark.parametrize("method", ["fgm", "pgd", "freelb"])
def test_trap_43_no_weight_changes_and_no_hook_stays(method: Any, case: Case) -> None:
    objective, model, batch = case
    before = copy.deepcopy(model.state_dict())
    wrapped = Adversarial(objective, AdversarialConfig(method))
    wrapped.loss(model, batch).sum.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.embed.tokens is not None
    assert not model.embed.tokens._forward_hooks
    assert torch.equal(wrapped.inner.loss(model, batch).sum, objective.loss(model, batch).sum)


def test_trap_43_a_fault_in_the_attack_leaves_no_hook() -> None:
    objective, model, _ = classifier()
    with pytest.raises(AttributeError):
        Adversarial(objective).loss(model, Batch())
    assert model.embed.tokens is not None
    assert not model.embed.tokens._forward_hooks


def test_adapters_are_attacked_though_embeddings_are_frozen() -> None:
    objective, model, batch = classifier()
    model.requires_grad_(False)
    assert model.classifier is not None
    model.classifier.requires_grad_(True)
    loss = Adversarial(objective, AdversarialConfig("fgm", epsilon=0.5)).loss(model, batch)
    assert float(loss.metrics["adversarial_loss"][0]) > float(loss.metrics["clean_loss"][0])
    loss.sum.backward()
    assert model.embed.tokens is not None
    assert model.embed.tokens.weight.grad is None


def test_each_example_is_attacked_by_itself() -> None:
    objective, model, _ = classifier()
    examples = prepare(objective, LABELLED)[:4]
    wrapped = Adversarial(objective, AdversarialConfig("pgd"))
    whole = wrapped.loss(model, objective.collate(examples, rng())).sum
    parts = [wrapped.loss(model, objective.collate([one], rng())).sum for one in examples]
    assert torch.allclose(whole, torch.stack(parts).sum(), rtol=1e-9)


def test_evaluation_is_that_of_the_inner_objective(case: Case) -> None:
    objective, model, batch = case
    model.eval()
    with torch.no_grad():
        plain = objective.loss(model, batch).sum
        assert torch.equal(Adversarial(objective).loss(model, batch).sum, plain)
        assert torch.equal(RDrop(objective).loss(model, batch).sum, plain)  # type: ignore[arg-type]


def test_outputs_carry_the_loss(case: Case) -> None:
    objective, model, batch = case
    outputs = objective.outputs(model, batch)  # type: ignore[attr-defined]
    again = objective.loss_of(outputs)  # type: ignore[attr-defined]
    loss = objective.loss(model, batch)
    same(model, again.sum, loss.sum)
    assert int(again.count) == int(loss.count) == int((outputs.targets != IGNORE).sum())


def test_rdrop_is_half_the_papers_formula() -> None:
    objective, model, batch = classifier(dropout=0.3)
    torch.manual_seed(5)
    loss = RDrop(objective, RDropConfig(alpha=2.0)).loss(model, batch)  # type: ignore[arg-type]
    torch.manual_seed(5)
    p, q = (objective.outputs(model, batch).logits.softmax(-1) for _ in range(2))  # type: ignore[attr-defined]
    right = torch.arange(len(batch.labels)), batch.labels
    likelihood = -p[right].log().sum() - q[right].log().sum()
    apart = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    # float32 inside the comparison of distributions
    assert float(loss.sum.detach()) == pytest.approx(float((likelihood + 2.0 / 2 * apart).detach()) / 2, rel=1e-6)
    assert float(loss.metrics["disagreement"][0]) > 0


def test_rdrop_without_dropout_is_the_plain_loss(case: Case) -> None:
    objective, model, batch = case
    loss = RDrop(objective).loss(model, batch)  # type: ignore[arg-type]
    same(model, loss.sum, objective.loss(model, batch).sum)


def test_the_anchors_penalty_is_the_papers_formula_and_enters_a_step_once() -> None:
    objective, model, batch = classifier()
    weights = {name: one for name, one in model.named_parameters() if name.startswith("encoder")}
    made = Anchor(
        {name: one.detach() + 0.1 for name, one in weights.items()},
        {name: torch.rand_like(one) for name, one in weights.items()},
    )
    wrapped = Anchored(objective, [made, made], strength=3.0)
    expected = sum(3.0 / 2 * 2 * (made.importance[name] * 0.01).sum() for name in weights)
    loss = wrapped.loss(model, batch)
    plain = objective.loss(model, batch)
    assert float((loss.sum - plain.sum).detach()) == pytest.approx(float(expected) * int(plain.count))
    examples = prepare(objective, LABELLED)[:4]
    cut = [wrapped.loss(model, objective.collate(part, rng())).sum for part in (examples[:1], examples[1:])]
    assert torch.allclose(torch.stack(cut).sum(), loss.sum)


def test_the_fisher_information_of_a_linear_head() -> None:
    """With a body that does not matter: of softmax regression the Fisher information is known."""
    objective, model, _ = classifier()
    examples = prepare(objective, LABELLED)
    found = anchor(model, objective, examples * 40, seed=1)  # type: ignore[arg-type]
    exact: dict[str, Tensor] = {}
    for example in examples:  # the expectation over the classes, written out
        outputs = objective.outputs(model.eval(), objective.collate([example], rng()))  # type: ignore[attr-defined]
        log_p = outputs.logits.log_softmax(-1)[0]
        for index in range(2):
            for name, gradient in gradients(model, log_p[index]).items():
                part = float(log_p[index].detach().exp()) * gradient.square() / len(examples)
                exact[name] = exact.get(name, torch.zeros_like(gradient)) + part
    name = max(found.importance, key=lambda one: float(exact[one].sum()))
    assert torch.allclose(found.importance[name].sum(), exact[name].sum(), rtol=0.15)
    assert not any(one.startswith("classifier") for one in found.values)  # a head is a task's own


def test_an_anchor_holds_a_weight_that_mattered(tmp_path: Path) -> None:
    objective, model, batch = classifier()
    made = anchor(model, objective, prepare(objective, LABELLED))  # type: ignore[arg-type]
    made.save(tmp_path / "anchor.safetensors")
    again = Anchor.load(tmp_path / "anchor.safetensors")
    assert all(torch.equal(value, again.values[name]) for name, value in made.values.items())
    pulled = Anchored(objective, [again], strength=1e4)
    pulled.check(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05)
    before = float(pulled.penalty(model).detach())
    pulled.loss(model, batch).sum.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(1e-6 * parameter.grad)
    assert float(pulled.penalty(model).detach()) < before


def test_what_cannot_be_wrapped_is_told() -> None:
    objective, model, _ = classifier()
    with pytest.raises(ConfigError, match="another kernel"):
        Anchored(objective, [Anchor({"nothing": torch.zeros(1)}, {"nothing": torch.zeros(1)})], 1.0).check(model)
    with pytest.raises(ConfigError, match="epsilon"):
        AdversarialConfig(epsilon=0)
    with pytest.raises(ConfigError, match="strength"):
        Anchored(objective, [], 0.0)
    assert Adversarial(MaskedLM(tokenizer("bert"))).tokenizer is tokenizer("bert")
