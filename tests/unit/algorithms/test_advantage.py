"""Rewards and advantages against plain loops over Python lists."""

import statistics

import pytest
import torch

from rlaif.algorithms.advantage import (
    Normalization,
    RewardStatistics,
    gae,
    grpo,
    kl_coefficient,
    rloo,
    token_rewards,
    whiten,
)
from rlaif.config.schema import KL

LENGTHS = [5, 1, 3]


@pytest.fixture
def mask():
    return torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)


def plain_gae(rewards, values, gamma, lam):
    """Equation 16 as a double sum, without a recursion."""
    last = len(rewards)
    errors = [rewards[t] + gamma * (values[t + 1] if t + 1 < last else 0.0) - values[t] for t in range(last)]
    return [sum((gamma * lam) ** k * errors[t + k] for k in range(last - t)) for t in range(last)]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 0.0), (1.0, 1.0)])
def test_gae_equals_the_plain_sum_and_ignores_padding(mask, gamma, lam):
    rewards, values = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    advantages, returns = gae(rewards.masked_fill(~mask, 99.0), values.masked_fill(~mask, 99.0), mask, gamma, lam)
    for row, length in enumerate(LENGTHS):
        expected = plain_gae(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
        assert advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-5)
        total = [a + v for a, v in zip(expected, values[row, :length].tolist(), strict=True)]
        assert returns[row, :length].tolist() == pytest.approx(total, abs=1e-5)
    assert not advantages[~mask].any() and not returns[~mask].any()


def test_reward_is_on_the_last_response_token_and_kl_on_every_one(mask):
    logprobs, reference = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    rewards = token_rewards(torch.tensor([1.0, 2.0, 3.0]), logprobs, reference, mask, 0.1)
    for row, length in enumerate(LENGTHS):
        for t in range(5):
            expected = -0.1 * (logprobs[row, t] - reference[row, t]).item() if t < length else 0.0
            expected += row + 1 if t == length - 1 else 0.0
            assert rewards[row, t].item() == pytest.approx(expected, abs=1e-6)


def test_rloo_is_each_return_minus_the_mean_of_the_others():
    assert rloo(torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3).tolist() == pytest.approx(
        [1 - 4, 2 - 3.5, 6 - 1.5, -1.5, -1.5, 3.0]
    )


def test_grpo_standardises_within_the_group_and_survives_equal_returns():
    values = [1.0, 2.0, 6.0]
    mean, std = statistics.mean(values), statistics.stdev(values)
    found = grpo(torch.tensor([*values, 4.0, 4.0, 4.0]), 3).tolist()
    assert found == pytest.approx([*((v - mean) / std for v in values), 0, 0, 0], abs=1e-5)


def test_whitening_takes_only_response_tokens(mask):
    values = torch.randn(3, 5, generator=torch.Generator().manual_seed(2)).masked_fill(~mask, 1e6)
    white = whiten(values, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[mask].std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert not white[~mask].any()


def test_running_statistics_equal_those_of_all_scores_at_once():
    scores = torch.randn(30, generator=torch.Generator().manual_seed(3)).double() * 3 + 5
    running = RewardStatistics()
    for part in scores.split([7, 1, 22]):
        running = running.with_scores(part)
    assert running.mean == pytest.approx(scores.mean().item())
    assert running.std == pytest.approx(scores.std(unbiased=False).item())
    normalized = Normalization(mean=running.mean, scale=running.std)(scores)
    assert normalized.mean().item() == pytest.approx(0, abs=1e-6)


def test_equal_scores_are_not_divided_by_nothing():
    assert RewardStatistics().std == 1.0
    assert RewardStatistics().with_scores(torch.full((4,), 0.1)).std == 1.0


def test_adaptive_coefficient_steers_the_sequence_kl():
    settings = KL(controller="adaptive", target=6.0, horizon=100.0)
    assert kl_coefficient(settings, 0.1, 6.0, 10) == pytest.approx(0.1)
    assert kl_coefficient(settings, 0.1, 6.6, 10) == pytest.approx(0.1 * (1 + 0.1 * 10 / 100))
    assert kl_coefficient(settings, 0.1, 600.0, 10) == pytest.approx(0.1 * (1 + 0.2 * 10 / 100))
    assert kl_coefficient(settings, 0.1, 0.0, 10) == pytest.approx(0.1 * (1 - 0.2 * 10 / 100))
    assert kl_coefficient(KL(controller="fixed"), 0.1, 600.0, 10) == 0.1
