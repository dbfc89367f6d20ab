"""What reinforcement computes against published formulas, written again here, and against TRL: values and gradients."""

from __future__ import annotations

import importlib
from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from objective_kit import kernel as kit_kernel
from torch import Tensor

from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.model import Kernel
from nacre.kernel.sampling import SamplingConfig
from nacre.tiers.tune.reinforce import critic
from nacre.tiers.tune.reinforce.config import CriticConfig, LossKlConfig, PolicyConfig
from nacre.tiers.tune.reinforce.formulas import (
    adapted,
    entropy,
    gae,
    group,
    kl_estimate,
    policy_loss,
    value_loss,
    whiten,
)
from nacre.tiers.tune.reinforce.mismatch import mismatch
from nacre.tiers.tune.reinforce.policy import Experience, Policy, PolicyBatch
from nacre.train.objectives.answers import Side

LENGTHS = (3, 5, 1, 4)
LONGEST = 6
TOLERANCE = {"rtol": 0, "atol": 1e-6}


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same_with_gradients(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Values, and gradients of a weighted sum, to 1e-6."""
    torch.testing.assert_close(found, expected, **TOLERANCE)
    weights = noise(*found.shape, seed=9)
    mine = torch.autograd.grad((found * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


# --- formulas


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_equation_16(gamma: float, lam: float) -> None:
    rewards, values = noise(4, 5, seed=1).requires_grad_(), noise(4, 5, seed=2).requires_grad_()
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    expected = torch.zeros(4, 5, dtype=torch.float64)
    rows = []
    for row, n in enumerate(LENGTHS):
        after = [*values[row, :n], torch.zeros((), dtype=torch.float64)]
        deltas = [rewards[row, t] + gamma * after[t + 1] - after[t] for t in range(n)]
        told = [sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)]
        rows.append(torch.stack([*told, *expected[row, n:]]))  # type: ignore[list-item]
    expected = torch.stack(rows)
    found, returns = gae(rewards, values, mask, gamma, lam)
    same_with_gradients(found, expected, [rewards, values])
    torch.testing.assert_close(returns, (expected + values) * mask, **TOLERANCE)
    if lam == 1 and gamma == 1:  # then a return is what is yet to be earned, whatever the critic says
        torch.testing.assert_close(returns[1, 2], rewards[1, 2:5].sum(), **TOLERANCE)


def test_what_lies_behind_an_answer_changes_nothing() -> None:
    rewards, values = noise(4, 5, seed=1), noise(4, 5, seed=2)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    other = [torch.where(mask, one, 99.0) for one in (rewards, values)]
    for one, two in zip(gae(rewards, values, mask, 0.9, 0.9), gae(*other, mask, 0.9, 0.9), strict=True):
        assert torch.equal(one, two)


def test_the_clipped_policy_loss_is_equation_7() -> None:
    new, old, advantages = noise(40, seed=1).requires_grad_(), noise(40, seed=2, scale=0.7), noise(40, seed=3)
    low, high = 0.2, 0.28
    found, clipped = policy_loss(new, old, advantages, low, high)
    expected, acts = [], []
    for i in range(40):
        ratio = new[i].exp() / old[i].exp()
        held = min(max(ratio.item(), 1 - low), 1 + high)
        if (ratio * advantages[i]).item() <= held * advantages[i].item():
            expected.append(-ratio * advantages[i])
            acts.append(False)
        else:  # the clip acts: no gradient
            expected.append(-held * advantages[i] + 0 * ratio)
            acts.append(True)
    same_with_gradients(found, torch.stack(expected), [new])
    assert clipped.tolist() == acts
    assert 0 < sum(acts) < 40


def test_the_value_loss_with_and_without_its_clip() -> None:
    new, old, returns = noise(40, seed=1).requires_grad_(), noise(40, seed=2), noise(40, seed=3)
    same_with_gradients(value_loss(new, old, returns), 0.5 * (new - returns) ** 2, [new])
    rows = []
    for v, v_old, target in zip(new, old, returns, strict=True):
        held = v_old + torch.clamp(v - v_old, -0.2, 0.2)
        rows.append(0.5 * max((v - target) ** 2, (held - target) ** 2))
    same_with_gradients(value_loss(new, old, returns, 0.2), torch.stack(rows), [new])


def test_entropy_of_a_distribution_and_of_a_truncated_one() -> None:
    logits = noise(6, 9, seed=1).requires_grad_()
    expected = torch.distributions.Categorical(logits=logits).entropy()
    same_with_gradients(entropy(logits), expected, [logits])
    cut = logits.masked_fill(torch.arange(9) > 5, -torch.inf)
    expected = torch.distributions.Categorical(logits=logits[:, :6]).entropy()
    same_with_gradients(entropy(cut), expected, [logits])


def test_k1_and_k3_are_kl_on_average_and_k2_and_k3_never_negative() -> None:
    policy, reference = noise(7, seed=1).log_softmax(0), noise(7, seed=2).log_softmax(0)
    divergence = float((policy.exp() * (policy - reference)).sum())
    for name in ("k1", "k3"):
        found = kl_estimate(policy, reference, name)  # type: ignore[arg-type]
        assert float((policy.exp() * found).sum()) == pytest.approx(divergence, abs=1e-9)
    ratio = (reference - policy).exp()
    torch.testing.assert_close(kl_estimate(policy, reference, "k1"), -ratio.log(), **TOLERANCE)
    torch.testing.assert_close(kl_estimate(policy, reference, "k2"), ratio.log() ** 2 / 2, **TOLERANCE)
    torch.testing.assert_close(kl_estimate(policy, reference, "k3"), ratio - 1 - ratio.log(), **TOLERANCE)
    assert min(float(kl_estimate(policy, reference, name).min()) for name in ("k2", "k3")) >= 0  # type: ignore[arg-type]


def test_the_gradient_of_k1_as_a_reward_is_that_of_kl_and_those_of_k2_and_k3_are_not() -> None:
    """Why PPO takes k1: a reward moves the policy by its own gradient, the value itself being held."""
    logits, reference = noise(7, seed=1).requires_grad_(), noise(7, seed=2).log_softmax(0)
    policy = logits.log_softmax(0)
    wanted = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)[0]
    apart = {}
    for name in ("k1", "k2", "k3"):
        paid = kl_estimate(policy, reference, name).detach()  # type: ignore[arg-type]
        found = torch.autograd.grad((policy.exp() * paid).sum(), logits, retain_graph=True)[0]
        apart[name] = float((found - wanted).abs().max())
    assert apart["k1"] < 1e-9
    assert min(apart["k2"], apart["k3"]) > 1e-2


def test_the_gradient_of_k1_in_a_loss_is_0_on_average_and_that_of_k2_is_that_of_kl() -> None:
    """Why k1 is refused there."""
    logits, reference = noise(7, seed=1).requires_grad_(), noise(7, seed=2).log_softmax(0)
    policy = logits.log_softmax(0)
    wanted = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)[0]
    for name, expected in (("k1", torch.zeros(7, dtype=torch.float64)), ("k2", wanted)):
        drawn = (policy.detach().exp() * kl_estimate(policy, reference, name)).sum()  # type: ignore[arg-type]
        found = torch.autograd.grad(drawn, logits, retain_graph=True)[0]
        torch.testing.assert_close(found, expected, **TOLERANCE)


def test_the_adaptive_coefficient_is_that_of_ziegler() -> None:
    assert adapted(0.1, 6.6, 6.0) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert adapted(0.1, 60.0, 6.0) == pytest.approx(0.1 * 1.02)
    assert adapted(0.1, 0.0, 6.0) == pytest.approx(0.1 * 0.98)


@pytest.mark.parametrize("scale", ["std", "none"])
def test_group_advantages(scale: Any) -> None:
    rewards = noise(5, 8, seed=4)
    found = group(rewards, scale)
    for row, told in zip(rewards.numpy(), found.numpy(), strict=True):
        expected = row - row.mean()
        if scale == "std":
            expected = expected / (row.std(ddof=1) + 1e-4)
        np.testing.assert_allclose(told, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.3, 1e-9, 1e9])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_trap_41_equal_rewards_give_no_advantage_and_no_nan(value: float, scale: Any) -> None:
    rewards = torch.full((3, 7), value, dtype=torch.float32)
    rewards[2, 0] += 1
    found = group(rewards, scale)
    assert torch.equal(found[:2], torch.zeros(2, 7))
    assert bool(found.isfinite().all())
    assert torch.equal(group(rewards[:, :1], scale), torch.zeros(3, 1)), "an answer alone"
    mask = torch.ones(3, 7, dtype=torch.bool)
    assert torch.equal(whiten(torch.full((3, 7), value), mask), torch.zeros(3, 7))
    assert torch.equal(whiten(torch.full((3, 7), value), ~mask), torch.zeros(3, 7)), "of nothing"


def test_whitened_values_have_mean_0_and_deviation_1_over_the_tokens() -> None:
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    values = noise(4, 5, seed=3) * 4 + 2
    found = whiten(values, mask)
    kept = values[mask].numpy()
    np.testing.assert_allclose(found[mask].numpy(), (kept - kept.mean()) / kept.std(), atol=1e-7)
    assert not found[~mask].any()


# --- the whole loss, on a kernel


def double(style: str = "llama") -> Kernel:
    return kit_kernel(style, "lm", decoder_start_id=0).double() if style == "t5" else kit_kernel(style, "lm").double()


def experiences(kernel: Kernel, seed: int = 0) -> list[Experience]:
    rng = np.random.default_rng(seed)
    found = []
    for n in LENGTHS:
        side = Side(rng.integers(5, 200, 4 + n % 3).astype(np.int32), rng.integers(5, 200, n).astype(np.int32))
        old, base, values, returns = (rng.normal(-5, 0.4, n).astype(np.float32) for _ in range(4))
        advantages = np.full(n, rng.normal(), np.float32)
        found.append(Experience(side, old, base, advantages, None, returns, values))
    return found


def doubled(batch: PolicyBatch) -> PolicyBatch:
    from dataclasses import fields, replace

    floating = {
        one.name: value.double()
        for one in fields(batch)
        if isinstance(value := getattr(batch, one.name), Tensor) and value.is_floating_point()
    }
    return replace(batch, **floating)


def table(rows: list[np.ndarray]) -> Tensor:
    """(B, LONGEST) float64, 0 on the right."""
    found = torch.zeros(len(rows), LONGEST, dtype=torch.float64)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = torch.from_numpy(values.astype(np.float64))
    return found


def logps_of(kernel: Kernel, examples: list[Experience], temperature: float) -> Tensor:
    """(B, LONGEST) one text at a time, through the plain forward pass."""
    rows = []
    for one in examples:
        ids = torch.tensor(np.concatenate([one.side.source, one.side.target])).long()[None]
        logps = (kernel.lm_logits(kernel(ids).hidden) / temperature).log_softmax(-1)[0]
        start = len(one.side.source)
        said = torch.stack([logps[at - 1, ids[0, at]] for at in range(start, ids.shape[1])])
        rows.append(torch.cat([said, torch.zeros(LONGEST - len(said), dtype=said.dtype)]))
    return torch.stack(rows)


def gradients(kernel: Kernel, loss: Tensor) -> dict[str, Tensor]:
    names, weights = zip(*kernel.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return {name: one for name, one in zip(names, found, strict=True) if one is not None}


def assert_same_loss(kernel: Kernel, found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, **TOLERANCE)
    mine, theirs = gradients(kernel, found), gradients(kernel, expected)
    assert mine.keys() == theirs.keys()
    assert max(float(one.abs().max()) for one in theirs.values()) > 1e-3
    for name, one in mine.items():
        torch.testing.assert_close(one, theirs[name], **TOLERANCE)


@pytest.mark.parametrize(("loss_type", "normalise"), [("grpo", "sequence"), ("dapo", "token"), ("dr_grpo", "constant")])
def test_the_loss_of_grpo_is_that_of_trl(loss_type: str, normalise: Any) -> None:
    trainer = pytest.importorskip("trl.trainer.grpo_trainer")
    kernel, temperature = double(), 0.8
    examples = experiences(kernel)
    policy = Policy(
        SamplingConfig(temperature),
        PolicyConfig(clip_low=0.2, clip_high=0.28, normalise=normalise),
        longest=LONGEST,
        kl=LossKlConfig(0.05),
    )
    policy.check(kernel)
    batch = doubled(policy.collate(examples, torch.Generator()))
    loss = policy.loss(kernel, batch)
    mask = table([np.ones(len(one.old)) for one in examples])
    said = logps_of(kernel, examples, temperature)
    stub: Any = SimpleNamespace(
        loss_type=loss_type, importance_sampling_level="token", beta=0.05, epsilon_low=0.2, epsilon_high=0.28,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, aux_loss_enabled=False,
        vllm_importance_sampling_correction=False,
        max_completion_length=LONGEST, current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)}, model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1),
        _get_per_token_logps_and_entropies=lambda *_, **__: (said, torch.zeros_like(mask), None),
    )  # fmt: skip
    zeros = torch.zeros(len(examples), 1, dtype=torch.long)
    inputs = {
        "prompt_ids": zeros, "prompt_mask": zeros, "completion_mask": mask, "num_items_in_batch": mask.sum(),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
        "advantages": torch.tensor([float(one.advantages[0]) for one in examples], dtype=torch.float64),
        "old_per_token_logps": table([one.old for one in examples]),
        "ref_per_token_logps": table([one.reference for one in examples]),
    }  # fmt: skip
    expected = trainer.GRPOTrainer._compute_loss(stub, None, inputs)
    assert_same_loss(kernel, loss.sum / loss.count, expected)
    clipped, tokens = loss.metrics["clipped"]
    assert float(clipped / tokens) == pytest.approx(stub._metrics["train"]["clip_ratio/region_mean"][0])
    assert 0 < float(clipped) < float(tokens)


def test_the_advantages_of_trl() -> None:
    """TRL computes them within a long method: the same lines, on its own nanstd."""
    utilities = importlib.import_module("trl.trainer.utils") if _has_trl() else pytest.skip("trl is not installed")
    rewards = noise(6, 4, seed=8)
    rewards[2] = 0.1
    mean = torch.nanmean(rewards, dim=1, keepdim=True)
    expected = (rewards - mean) / (utilities.nanstd(rewards, dim=1)[:, None] + 1e-4)
    torch.testing.assert_close(group(rewards, "std"), expected, **TOLERANCE)


def _has_trl() -> bool:
    return importlib.util.find_spec("trl") is not None


@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_loss_of_ppo_is_its_formulas(clip: float | None) -> None:
    kernel, examples = double(), experiences(double(), 1)
    critic.attach(kernel)
    head: Any = kernel.value_head
    head.double()
    with torch.no_grad():
        head.weight.copy_(noise(1, kernel.config.hidden_size, seed=5))
    policy = Policy(
        SamplingConfig(), PolicyConfig(entropy=0.01), longest=LONGEST, critic=CriticConfig(weight=0.3, clip=clip)
    )
    policy.check(kernel)
    loss = policy.loss(kernel, doubled(policy.collate(examples, torch.Generator())))
    terms = []
    for one in examples:
        ids = torch.tensor(np.concatenate([one.side.source, one.side.target])).long()[None]
        states = kernel(ids).hidden[0, len(one.side.source) - 1 : -1]
        spread = torch.distributions.Categorical(logits=kernel.lm_logits(states))
        said, values = spread.log_prob(torch.from_numpy(one.side.target).long()), (head(states))[:, 0]
        old, gained, worth, valued = (
            torch.from_numpy(np.asarray(part)).double() for part in (one.old, one.advantages, one.returns, one.values)
        )
        ratio = torch.exp(said - old)
        surrogate = torch.min(ratio * gained, ratio.clamp(0.8, 1.2) * gained)
        error = (values - worth) ** 2
        if clip is not None:
            error = torch.max(error, (valued + (values - valued).clamp(-clip, clip) - worth) ** 2)
        terms.append(-surrogate + 0.3 * error / 2 - 0.01 * spread.entropy())
    assert_same_loss(kernel, loss.sum / loss.count, torch.cat(terms).mean())


@pytest.mark.parametrize("normalise", ["token", "sequence", "constant"])
def test_how_a_step_is_cut_into_parts_changes_nothing(normalise: Any) -> None:
    kernel = double()
    examples = experiences(kernel)
    policy = Policy(SamplingConfig(), PolicyConfig(normalise=normalise, chunk=2), longest=LONGEST, kl=LossKlConfig())
    policy.check(kernel)
    whole = policy.loss(kernel, doubled(policy.collate(examples, torch.Generator())))
    halves = [
        policy.loss(kernel, doubled(policy.collate(examples[cut], torch.Generator())))
        for cut in (slice(1), slice(1, 4))
    ]
    total = halves[0].sum + halves[1].sum
    assert int(whole.count) == int(halves[0].count + halves[1].count)
    assert_same_loss(kernel, whole.sum / whole.count, total / whole.count)


def test_the_chunked_head_is_the_whole_one() -> None:
    kernel = double()
    examples = experiences(kernel)
    found = []
    for chunk in (0, 3):
        policy = Policy(SamplingConfig(0.9), PolicyConfig(entropy=0.1, chunk=chunk), longest=LONGEST, kl=LossKlConfig())
        policy.check(kernel)
        found.append(policy.loss(kernel, doubled(policy.collate(examples, torch.Generator()))).sum)
    assert_same_loss(kernel, *found)


# --- trap 41: the distribution that was drawn from


@pytest.mark.parametrize("style", ["llama", "gpt", "t5"])
@pytest.mark.parametrize(
    "sampling", [SamplingConfig(0.6), SamplingConfig(1.3, top_p=0.7), SamplingConfig(0.9, top_k=5)]
)
def test_trap_41_temperature_and_truncation_apply_on_both_sides(style: str, sampling: SamplingConfig) -> None:
    kernel = kit_kernel(style, "lm", decoder_start_id=0) if style == "t5" else kit_kernel(style, "lm")
    with torch.no_grad():  # a fresh kernel finds every token as likely as any other
        next(kernel.parameters()).mul_(0.3 if style == "t5" else 8)
    prompts = [[7, 9, 11, 13][: 2 + i % 3] for i in range(8)]
    written = generate(kernel, prompts, GenerationConfig(6, sampling, seed=3))
    sides = [
        Side(np.array(prompt, np.int32), np.array([*one.ids, *([] if one.end is None else [one.end])], np.int32))
        for prompt, one in zip(prompts, written, strict=True)
    ]
    policy = Policy(sampling, PolicyConfig(), longest=6)
    policy.check(kernel)
    said = policy.measure(kernel, sides)
    drawn = [np.array(one.drawn_log_probabilities) for one in written]
    own = [np.array(one.log_probabilities) for one in written]
    found = mismatch(drawn, [one.logps for one in said])
    assert found.largest < 1e-4
    assert found.outside == 0
    assert mismatch(drawn, own).largest > 0.05, "the distribution that is drawn from is another than the kernel's own"
    again = policy.measure(kernel, sides, [one.kept for one in said])
    for one, other in pairwise([said, again]):
        assert all(np.array_equal(a.logps, b.logps) for a, b in zip(one, other, strict=True))


def test_trap_41_a_token_that_left_the_nucleus_keeps_a_finite_probability() -> None:
    """Weights change between epochs: what was truncated when an answer was drawn stays what is truncated."""
    kernel, sampling = kit_kernel("llama", "lm"), SamplingConfig(1.0, top_k=3)
    side = Side(np.array([7, 9], np.int32), np.array([11, 12], np.int32))
    policy = Policy(sampling, PolicyConfig(), longest=6)
    policy.check(kernel)
    [first] = policy.measure(kernel, [side])
    assert first.kept is not None
    kept = np.unpackbits(first.kept, axis=1, count=kernel.config.vocab_size)
    assert kept.sum(1).max() <= 4, "the three likeliest, and the one drawn"
    assert kept[0, 11] == kept[1, 12] == 1
    with torch.no_grad():
        for weight in kernel.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    [after] = policy.measure(kernel, [side], [first.kept])
    assert np.isfinite(after.logps).all()
    assert np.array_equal(after.kept, first.kept)


def test_trap_41_mismatch_is_measured_per_token_not_by_its_mean() -> None:
    drawn = [np.full(10, -1.0)]
    trained = [drawn[0] + np.array([0.4, -0.4] + [0.0] * 8)]
    found = mismatch(drawn, trained)
    assert float((trained[0] - drawn[0]).mean()) == pytest.approx(0, abs=1e-12)
    assert found.outside == pytest.approx(0.2)
    assert found.largest == pytest.approx(0.4)
