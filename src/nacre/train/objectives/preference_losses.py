"""The losses of preference learning as functions of log-probabilities, one value per pair or row; (B,) throughout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo(margin: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid of the margin of rewards (Rafailov et al. 2023, equation 7). With `label_smoothing` e that share of
    the labels is taken to be wrong: -(1 - e) log sigmoid(m) - e log sigmoid(-m) (Mitchell 2023, conservative DPO)."""
    loss = -(1 - label_smoothing) * F.logsigmoid(margin)
    return loss - label_smoothing * F.logsigmoid(-margin) if label_smoothing else loss


def ipo(gap: Tensor, tau: float) -> Tensor:
    """(gap - 1 / (2 tau))^2 (Azar et al. 2023, equation 17); `gap` is the difference of log-ratios."""
    return (gap - 1 / (2 * tau)).square()


def kto(log_ratio: Tensor, good: Tensor, baseline: Tensor, beta: float) -> Tensor:
    """1 - sigmoid(beta (log_ratio - z)) for good answers, 1 - sigmoid(beta (z - log_ratio)) for bad ones, where z is
    the baseline (Ethayarajh et al. 2024, equation 8, without its weights)."""
    away = torch.where(good, log_ratio - baseline, baseline - log_ratio)
    return 1 - torch.sigmoid(beta * away)


def kto_baseline(log_ratio: Tensor) -> Tensor:
    """max(0, mean log-ratio of answers to other prompts), without gradient: the KL divergence from the reference as
    KTO estimates it (section 4.1)."""
    return log_ratio.detach().mean().clamp_min(0)


def orpo(chosen: Tensor, rejected: Tensor, weight: float) -> Tensor:
    """-log P(chosen) - weight log sigmoid(log odds(chosen) / odds(rejected)), of log-probabilities per token (Hong et
    al. 2024, equations 4 to 7)."""
    return -chosen - weight * F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) of a log-probability below 0."""
    logp = logp.clamp_max(-torch.finfo(logp.dtype).eps)
    return logp - torch.log(-torch.expm1(logp))


def bradley_terry(gap: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-log sigmoid(gap - margin), where `gap` is the reward of the chosen answer less that of the rejected one."""
    return -F.logsigmoid(gap - margin)
