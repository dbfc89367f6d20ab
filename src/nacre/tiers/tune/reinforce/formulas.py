"""What reinforcement computes, as pure functions over tensors of any floating type.

Legend of shapes: B answers, T tokens of the longest, P prompts, G answers to each, N tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4  # added to the deviation of a group: TRL's value


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns, (B, T) each, 0 outside `mask` (Schulman et al. 2016, equation 16).

    `rewards`, `values` (B, T); `mask` (B, T) is True at tokens of the answer, which begin each row. After its last
    token an answer is worth 0.
    """
    keep = mask.to(values.dtype)
    rewards, values = rewards * keep, values * keep
    advantages = []
    running = following = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * following - values[:, t]
        running = (delta + gamma * lam * running) * keep[:, t]
        following = values[:, t]
        advantages.append(running)
    stacked = torch.stack(advantages[::-1], dim=1)
    return stacked, (stacked + values) * keep


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Values (B, T) with mean 0 and deviation 1 over `mask`, 0 outside; 0 throughout where all are the same."""
    kept = values[mask]
    if not len(kept) or bool((kept == kept[0]).all()):
        return torch.zeros_like(values)
    deviation = kept.var(unbiased=False).sqrt()
    return torch.where(mask, (values - kept.mean()) / (deviation + 1e-8), torch.zeros_like(values))


def group(rewards: Tensor, scale: Literal["std", "none"] = "std") -> Tensor:
    """Advantages (P, G) of answers within their group (Shao et al. 2024, section 4.1.1); exactly 0 in a group whose
    rewards are all the same, or which has one answer."""
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "std" and rewards.shape[1] > 1:
        advantages = advantages / (rewards.std(dim=1, keepdim=True) + EPSILON)
    same = rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)
    return torch.where(same, torch.zeros_like(advantages), advantages)


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The clipped loss of each token (N,) (Schulman et al. 2017, equation 7, negated), and where the clip acts, bool.

    `new`, `old` (N,): log-probabilities of the token; `low`, `high`: how far the ratio may leave 1.
    """
    ratio = (new - old).exp()
    free, held = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(free, held), held < free


def value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float | None = None) -> Tensor:
    """Half the squared error of each value (N,); with `clip` the larger of it and that of the value held within `clip`
    of its old one (as in OpenAI's baselines)."""
    errors = (new - returns).square()
    if clip is not None:
        held = old + (new - old).clamp(-clip, clip)
        errors = torch.maximum(errors, (held - returns).square())
    return errors / 2


def entropy(logits: Tensor) -> Tensor:
    """Of the distribution of each row in nats, (N, V) to (N,); minus infinity is a probability of 0."""
    logps = logits.log_softmax(dim=-1)
    possible = logps.masked_fill(logps.isinf(), 0.0)  # before the product: 0 times infinity has no gradient
    return -(possible.exp() * possible).sum(dim=-1)


def kl_estimate(policy: Tensor, reference: Tensor, estimator: Literal["k1", "k2", "k3"]) -> Tensor:
    """KL(policy, reference) of each token (N,), drawn from the policy, in nats (Schulman 2020, "Approximating KL
    divergence"): k1 is unbiased, k2 has low variance, k3 both, and neither k2 nor k3 is ever below 0."""
    log_ratio = reference - policy
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return torch.expm1(log_ratio) - log_ratio


def adapted(coefficient: float, measured: float, target: float) -> float:
    """The next coefficient: up where the divergence is above its target, by at most 2 % (Ziegler et al. 2019,
    section 2.2)."""
    error = min(0.2, max(-0.2, measured / target - 1))
    return coefficient * (1 + 0.1 * error)
