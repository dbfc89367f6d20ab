"""From rewarded answers to what each of their tokens is worth: GRPO's groups, PPO's critic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nacre.tiers.tune.reinforce.config import GrpoConfig, PpoConfig
from nacre.tiers.tune.reinforce.formulas import gae, group, kl_estimate, whiten
from nacre.tiers.tune.reinforce.policy import Experience, Floats, Measured
from nacre.tiers.tune.reinforce.rollouts import Rollout


def by_group(
    rollouts: Sequence[Rollout], drawn: Sequence[Measured], reference: Sequence[Floats], config: GrpoConfig
) -> list[Experience]:
    """Each token has the advantage of its answer within the group of answers to its prompt."""
    rewards = torch.tensor([one.reward for one in rollouts], dtype=torch.float64).view(-1, config.rollouts.samples)
    found = group(rewards, config.scale).flatten().tolist()
    return [
        Experience(one.side, said.logps, base, np.full(len(one.ids), value, np.float32), said.kept)
        for one, said, base, value in zip(rollouts, drawn, reference, found, strict=True)
    ]


def by_critic(
    rollouts: Sequence[Rollout],
    drawn: Sequence[Measured],
    reference: Sequence[Floats],
    config: PpoConfig,
    coefficient: float,
) -> list[Experience]:
    """Generalised advantages; the reward less what each token pays for its divergence from the reference."""
    values = _padded([said.values for said in drawn if said.values is not None])
    mask = _padded([np.ones(len(one.ids)) for one in rollouts]).bool()
    old, base = _padded([said.logps for said in drawn]), _padded(reference)
    rewards = -coefficient * kl_estimate(old, base, "k1") * mask
    ends = mask.sum(dim=1) - 1
    rewards[torch.arange(len(rollouts)), ends] += torch.tensor([one.reward for one in rollouts], dtype=torch.float64)
    critic = config.critic
    advantages, returns = gae(rewards, values, mask, critic.gamma, critic.lam)
    if critic.whiten:
        advantages = whiten(advantages, mask)
    found = []
    for row, (one, said, beside) in enumerate(zip(rollouts, drawn, reference, strict=True)):
        cut = slice(0, len(one.ids))
        gained, worth = (values[row, cut].numpy().astype(np.float32) for values in (advantages, returns))
        found.append(Experience(one.side, said.logps, beside, gained, said.kept, worth, said.values))
    return found


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    """(B, T) float64, 0 on the right of each row."""
    return pad_sequence([torch.from_numpy(np.asarray(row, np.float64)) for row in rows], batch_first=True)
