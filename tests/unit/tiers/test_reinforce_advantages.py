"""What each token of a rewarded answer is worth, to a group and to a critic."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.tiers.tune.reinforce.advantages import by_critic, by_group
from nacre.tiers.tune.reinforce.config import CriticConfig, Exact, GrpoConfig, PpoConfig, RewardsConfig, RolloutConfig
from nacre.tiers.tune.reinforce.policy import Floats, Measured
from nacre.tiers.tune.reinforce.prompts import Prompt
from nacre.tiers.tune.reinforce.rollouts import Rollout

REWARDS = RewardsConfig(Exact())


def drawn(rewards: list[float], lengths: list[int]) -> tuple[list[Rollout], list[Measured], list[Floats]]:
    """Answers, what the policy says of them with a critic that says 0, and the reference."""
    rng, prompt = np.random.default_rng(0), Prompt((1, 2), (), {})
    rollouts = [
        Rollout(prompt, tuple(range(5, 5 + n)), "", (0.0,) * n, cut=False, reward=reward)
        for reward, n in zip(rewards, lengths, strict=True)
    ]
    said = [Measured(rng.normal(-2, 1, n).astype(np.float32), np.zeros(n, np.float32), None) for n in lengths]
    return rollouts, said, [rng.normal(-2, 1, n).astype(np.float32) for n in lengths]


def test_the_last_token_earns_the_reward_and_each_pays_for_its_divergence() -> None:
    rollouts, said, base = drawn([1.0, 0.0, 0.5], [3, 1, 4])
    config = PpoConfig(REWARDS, CriticConfig(gamma=1.0, lam=1.0, whiten=False))
    found = by_critic(rollouts, said, base, config, 0.3)
    for one, rollout, policy, reference in zip(found, rollouts, said, base, strict=True):
        paid = 0.3 * (policy.logps.astype(float) - reference)
        expected = [rollout.reward - paid[t:].sum() for t in range(len(paid))]
        assert one.returns is not None
        np.testing.assert_allclose(one.returns, expected, atol=1e-6)
        np.testing.assert_allclose(one.advantages, expected, atol=1e-6)
    myopic = PpoConfig(REWARDS, CriticConfig(gamma=0.0, lam=0.0, whiten=False))
    first = by_critic(rollouts, said, base, myopic, 0.0)[0]
    assert first.advantages.tolist() == [0, 0, 1], "nobody but the last token earns it"


def test_whitened_over_the_tokens_of_all_answers() -> None:
    rollouts, said, base = drawn([1.0, 0.0, 0.5], [3, 1, 4])
    found = by_critic(rollouts, said, base, PpoConfig(REWARDS), 0.3)
    values = np.concatenate([one.advantages for one in found])
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, abs=1e-4)


def test_an_answer_is_compared_with_those_to_its_own_prompt() -> None:
    rollouts, said, base = drawn([1.0, 0.0, 5.0, 5.0], [3, 1, 4, 2])
    config = GrpoConfig(REWARDS, scale="none", rollouts=RolloutConfig(prompts=2, samples=2))
    found = by_group(rollouts, said, base, config)
    assert [one.advantages.tolist() for one in found] == [[0.5] * 3, [-0.5], [0.0] * 4, [0.0] * 2]
    assert all(np.array_equal(one.old, two.logps) for one, two in zip(found, said, strict=True))
