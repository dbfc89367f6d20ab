"""Reward models and preference objectives against TRL's own loss code and the published formulas, in float64.

TRL's functions run over a model of `transformers` that was read from what we saved; the gradients of all weights are
compared under the names of that model.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from objective_kit import kernel, rng, tokenizer
from torch import Tensor

from nacre.kernel import hf
from nacre.kernel.hf_tensors import to_theirs
from nacre.kernel.model import Kernel
from nacre.train.objective import prepare
from nacre.train.objectives import preference_losses as losses
from nacre.train.objectives.config_align import PreferenceConfig, RewardConfig
from nacre.train.objectives.preference import Kto, Preference
from nacre.train.objectives.reference import Reference
from nacre.train.objectives.reward import LABELS, Reward

pytest.importorskip("trl")

ROWS = [
    {"prompt": "My card was refused.", "chosen": "I am sorry. Which shop was it?", "rejected": "Pay cash."},
    {"prompt": "包裹还没有到", "chosen": "请给我单号，我帮您查。", "rejected": "等着吧。"},
    {"prompt": "How do I change my address?", "chosen": "Open your account.", "rejected": "I moved last week as well!"},
    {"prompt": "Send the invoice again.", "chosen": "It is on its way.", "rejected": "发票的抬头写错了"},
]
TOLERANCE = {"rtol": 1e-6, "atol": 1e-9}


@cache
def policy(seed: int = 0) -> Kernel:
    """A decoder in float64 whose weights are large enough for differences to show (GPT-2: the norms and rotations of
    Llama are float32 in `transformers`, whatever the model's precision)."""
    made = kernel("gpt", dropout=0.0).double()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64) * 0.2)
    return made.eval()


def compared(kind: str, **choices: Any) -> tuple[Preference, Any]:
    """The objective and one batch of all rows, the reference another model than the policy."""
    config = PreferenceConfig(kind, context=96, **choices)  # type: ignore[arg-type]
    made = Kto if kind == "kto" else Preference
    objective = made(tokenizer("gpt"), None, config, reference=Reference(policy(5).float()))
    batch = objective.collate(prepare(objective, ROWS), rng())
    policy.cache_clear()
    return objective, batch


def ours(objective: Any, made: Kernel, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss, and the gradients under the names of `transformers`."""
    made.zero_grad()
    loss = objective.loss(made, batch)
    loss.mean.backward()
    gradients = {name: torch.zeros_like(one) if one.grad is None else one.grad for name, one in made.named_parameters()}
    return loss.mean.detach(), to_theirs(made.config, gradients)


@pytest.fixture
def theirs(tmp_path: Path) -> Any:
    hf.save(policy(), tmp_path)
    return transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()


def fused(model: Any) -> Any:
    """A model as TRL calls it: it returns the log-probability of each label, without the logits."""

    def forward(input_ids: Tensor, labels: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
        wanted = labels[:, 1:]
        own = logits.log_softmax(-1).gather(2, wanted.clamp_min(0)[..., None])[..., 0]
        blank = torch.zeros_like(own)
        top = logits.argmax(-1) == wanted
        return SimpleNamespace(
            log_probs=own * (wanted != -100), entropy=blank, mean_logits=blank, is_top1=top, log_sum_sq_probs=blank
        )

    return forward


def trainer(**fields: Any) -> SimpleNamespace:
    """What TRL's loss functions read of a trainer."""
    gather = {"gather_for_metrics": lambda x: x, "gather": lambda x: x, "device": torch.device("cpu")}
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(**gather),
        args=SimpleNamespace(center_rewards_coefficient=None),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **fields,
    )


def as_theirs(sides: Any) -> dict[str, Tensor]:
    """Our rows as TRL's: whole sequences, and where they are answers."""
    lengths = [int((row != -100).nonzero().max()) + 2 for row in sides.targets]
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    answers, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        target = sides.targets[row, : length - 1]
        ids[row, 0] = sides.ids[row, 0]
        read = F.pad(sides.ids[row, 1:], (0, 1))[: length - 1]
        ids[row, 1:length] = torch.where(target == -100, read, target)
        answers[row, 1:length] = (target != -100).long()
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "completion_mask": answers}


def check_gradients(model: Any, found: dict[str, Tensor]) -> None:
    named = {name: one for name, one in model.named_parameters() if one.grad is not None}
    assert named
    assert any(bool(one.grad.abs().sum() > 0) for one in named.values())
    for name, one in named.items():
        torch.testing.assert_close(found[name], one.grad, **TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "loss_type", "choices"),
    [
        ("dpo", "sigmoid", {}),
        ("dpo", "sigmoid", {"beta": 0.7}),
        ("dpo", "sigmoid_norm", {"normalise": True, "beta": 2.0}),
        ("ipo", "ipo", {"beta": 0.3}),
    ],
)
def test_pairs_against_trl_dpo(kind: str, loss_type: str, choices: dict[str, Any], theirs: Any) -> None:
    from trl import DPOTrainer

    objective, batch = compared(kind, **choices)
    value, gradients = ours(objective, policy(), batch)
    chosen, rejected = batch.reference.double().chunk(2)
    inputs = as_theirs(batch.sides) | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    fake = trainer(
        ld_alpha=None, f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0],
        beta=objective.config.strength, label_smoothing=0.0, use_weighting=False,
    )  # fmt: skip
    loss = DPOTrainer._compute_loss(fake, fused(theirs), inputs, False)
    torch.testing.assert_close(value, loss.detach(), **TOLERANCE)
    loss.backward()
    check_gradients(theirs, gradients)
    told = objective.loss(policy(), batch).metrics
    if loss_type == "sigmoid":
        names = {"margin": "rewards/margins", "reward_chosen": "rewards/chosen", "accuracy": "rewards/accuracies"}
        for mine, other in (names | {"logp_rejected": "logps/rejected"}).items():
            assert float(told[mine][0] / told[mine][1]) == pytest.approx(fake._metrics["train"][other][0], rel=1e-6)


def test_kto_against_trl(theirs: Any) -> None:
    from trl import KTOTrainer

    objective, batch = compared("kto", good_weight=1.3, bad_weight=0.7, beta=0.2)
    value, gradients = ours(objective, policy(), batch)
    size = len(batch.good)
    crossed = as_theirs(batch.sides.part(slice(size, None)))
    inputs = as_theirs(batch.sides.part(slice(0, size))) | {f"KL_{name}": one for name, one in crossed.items()}
    inputs |= {"label": batch.good, "ref_logps": batch.reference[:size].double()}
    inputs["ref_KL_logps"] = batch.reference[size:].double()
    fake = trainer(
        calculate_KL=True, loss_type="kto", beta=0.2, desirable_weight=1.3, undesirable_weight=0.7,
    )  # fmt: skip
    fake._compute_kl_logps = MethodType(KTOTrainer._compute_kl_logps, fake)
    loss = KTOTrainer._compute_loss(fake, fused(theirs), inputs, False)
    torch.testing.assert_close(value, loss.detach(), **TOLERANCE)
    loss.backward()
    check_gradients(theirs, gradients)
    told = objective.loss(policy(), batch).metrics["kl"]
    assert float(told[0] / told[1]) == pytest.approx(fake._metrics["train"]["kl"][0], rel=1e-6)


def average(model: Any, batch: Any) -> Tensor:
    """(2B,) log-probabilities of answers per token, from the model of `transformers`."""
    given = as_theirs(batch.sides)
    labels = given["input_ids"].masked_fill(given["completion_mask"] == 0, -100)
    found = fused(model)(given["input_ids"], labels, given["attention_mask"]).log_probs
    return found.sum(1) / given["completion_mask"].sum(1)


def test_orpo_against_trl(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's odds ratio; its first term is the paper's here, the chosen answer's own (TRL adds the prompt's)."""
    from trl.experimental.orpo import ORPOTrainer

    objective, batch = compared("orpo", beta=0.4)
    value, gradients = ours(objective, policy(), batch)
    chosen, rejected = average(theirs, batch).chunk(2)
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # TRL goes to float32 there
    odds = ORPOTrainer.odds_ratio_loss(trainer(beta=0.4), chosen, rejected)[0]
    monkeypatch.undo()
    loss = (-chosen - odds).mean()
    torch.testing.assert_close(value, loss.detach(), **TOLERANCE)
    loss.backward()
    check_gradients(theirs, gradients)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_simpo_against_trl_cpo(theirs: Any, smoothing: float) -> None:
    from trl.experimental.cpo import CPOTrainer

    objective, batch = compared("simpo", beta=2.5, gamma=1.4, label_smoothing=smoothing)
    value, gradients = ours(objective, policy(), batch)
    fake = trainer(alpha=0.0, loss_type="simpo", simpo_gamma=1.4, beta=2.5, label_smoothing=smoothing)
    loss = CPOTrainer.cpo_loss(fake, *average(theirs, batch).chunk(2))[0].mean()
    torch.testing.assert_close(value, loss.detach(), **TOLERANCE)
    loss.backward()
    check_gradients(theirs, gradients)


def test_formulas_as_published() -> None:
    """Written out over probabilities, without the identities that the code uses."""
    generator = torch.Generator().manual_seed(3)
    logs = (-torch.rand(4, 6, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    chosen, rejected, ref_chosen, ref_rejected = logs
    p, q = chosen.exp(), rejected.exp()
    h = 0.3 * (torch.log(p / ref_chosen.exp()) - torch.log(q / ref_rejected.exp()))

    def sigma(x: Tensor) -> Tensor:
        return 1 / (1 + (-x).exp())

    gap = chosen - ref_chosen - (rejected - ref_rejected)
    good = torch.tensor([True, False] * 3)
    z = torch.tensor(0.2, dtype=torch.float64)
    reward = torch.log(p / ref_chosen.exp())
    value = torch.where(good, sigma(0.3 * (reward - z)), sigma(0.3 * (z - reward)))
    odds = (p / (1 - p)) / (q / (1 - q))
    cases = {
        "dpo": (losses.dpo(0.3 * gap), -torch.log(sigma(h))),
        "cdpo": (losses.dpo(0.3 * gap, 0.1), -0.9 * torch.log(sigma(h)) - 0.1 * torch.log(sigma(-h))),
        "ipo": (losses.ipo(gap, 0.3), (h / 0.3 - 1 / (2 * 0.3)) ** 2),
        "kto": (losses.kto(chosen - ref_chosen, good, z, 0.3), 1 - value),
        "orpo": (losses.orpo(chosen, rejected, 0.4), -torch.log(p) - 0.4 * torch.log(sigma(torch.log(odds)))),
        "reward": (losses.bradley_terry(chosen - rejected, 0.5), -torch.log(sigma(chosen - rejected - 0.5))),
    }  # fmt: skip
    for name, (mine, formula) in cases.items():
        torch.testing.assert_close(mine, formula, rtol=1e-9, atol=1e-12, msg=name)
        one, other = (torch.autograd.grad(side.sum(), logs, retain_graph=True)[0] for side in (mine, formula))
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=name)


def test_kto_baseline_is_never_negative_and_has_no_gradient() -> None:
    ratios = torch.tensor([-1.0, -3.0], dtype=torch.float64, requires_grad=True)
    assert float(losses.kto_baseline(ratios)) == 0
    assert not losses.kto_baseline(ratios).requires_grad
    assert float(losses.kto_baseline(-ratios)) == 2


@pytest.mark.parametrize("centre", [0.0, 0.01])
@pytest.mark.parametrize("style", ["llama", "gpt", "bert"])
def test_reward_against_trl(style: str, centre: float, tmp_path: Path) -> None:
    """The loss and its gradients through `AutoModelForSequenceClassification(num_labels=1)` reading what we saved."""
    from trl import RewardTrainer

    decoder = style != "bert"
    made = kernel(style, "classify", labels=LABELS, pooling="last" if decoder else "cls").double()
    made.config = made.config.replace(pad_id=tokenizer(style).pad_id, dropout=0.0, attention_dropout=0.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng(1), dtype=torch.float64) * 0.1)
    hf.save(made, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert theirs.num_labels == 1
    rows = [row | {"margin": 0.3 * number} for number, row in enumerate(ROWS)]
    objective = Reward(
        tokenizer(style), None, RewardConfig(96, centre=centre), layout="decoder" if decoder else "encoder"
    )
    batch = objective.collate(prepare(objective, rows), rng())
    value, gradients = ours(objective, made, batch)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    if batch.token_types is not None:
        inputs["token_type_ids"] = batch.token_types
    torch.testing.assert_close(objective.rewards(made, batch), theirs(**inputs).logits[:, 0], **TOLERANCE)
    fake = trainer()
    fake.args.center_rewards_coefficient = centre or None
    called = lambda margin, **given: theirs(**given)  # noqa: E731
    loss = RewardTrainer.compute_loss(fake, called, inputs | {"margin": batch.margin.double()})
    torch.testing.assert_close(value, loss.detach(), **TOLERANCE)
    loss.backward()
    if style != "llama":  # whose norms are float32 in `transformers`
        check_gradients(theirs, gradients)
    told = objective.loss(made, batch).metrics
    for mine in ("accuracy", "margin"):
        assert float(told[mine][0] / told[mine][1]) == pytest.approx(fake._metrics["train"][mine][0], rel=1e-6)


def test_log_probabilities_of_an_encoder_decoder(tmp_path: Path) -> None:
    made = kernel("t5").double()
    hf.save(made, tmp_path)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    config = PreferenceConfig("dpo", context=64, target_context=64)
    objective = Preference(tokenizer("t5"), None, config, layout="encoder-decoder", reference=Reference(made))
    batch = objective.collate(prepare(objective, ROWS), rng())
    logits = theirs(input_ids=batch.ids, attention_mask=batch.mask.long(), decoder_input_ids=batch.decoder_ids).logits
    own = logits.log_softmax(-1).gather(2, batch.targets.clamp_min(0)[..., None])[..., 0] * (batch.targets != -100)
    rewards = objective.predict(made, batch).double().numpy() / 0.1
    expected = (own.sum(1) - batch.reference).view(2, -1).T.detach().numpy()
    assert np.abs(rewards - expected).max() < 1e-3
    assert float(objective.loss(made, batch).mean.detach()) == pytest.approx(np.log(2), abs=1e-5)
