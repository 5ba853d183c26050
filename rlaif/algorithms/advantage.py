"""From scores to advantages: KL penalty, reward normalisation, each algorithm's advantages, whitening.

Legend: ``B`` rollouts, ``T`` response positions, right-padded. ``mask`` [B, T] is True on response tokens and comes
from lengths. Position t of every tensor belongs to response token t; ``values[:, t]`` is the value *before* token t is
chosen, ``rewards[:, t]`` what is received for it. Everything here runs on the whole global batch, so that no number
depends on how many ranks there are.

Sources: GAE, arXiv 1506.02438, equation 16; KL in the reward and its adaptive coefficient, arXiv 1909.08593,
section 2.2; RLOO, arXiv 2402.14740, section 3; GRPO, arXiv 2402.03300, section 4.1.

Departures from the papers:
1. GAE: the end of an answer is always terminal (value 0 after it). An answer cut at the length limit is not
   bootstrapped; it pays ``truncation_penalty`` instead.
2. GAE advantages are whitened over the whole batch; RLOO's and GRPO's are not, their baselines centre them already.
3. GRPO: the KL penalty is in the reward (k1) and not in the loss, because k1 and k3 have the wrong gradient as losses;
   tokens are weighted equally over the batch, not first averaged within each answer.
4. RLOO: a token-level clipped ratio as in PPO takes the place of the sequence-level REINFORCE gradient, so that
   several epochs and stale samples are corrected; on-policy and with one minibatch its gradient is REINFORCE's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rlaif.config.schema import KL, Reinforcement


@dataclass(frozen=True, kw_only=True)
class RewardStatistics:
    """Running count, mean and sum of squared deviations of raw scores (Welford, merged by batch)."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of all scores so far; 1 when there is nothing to divide by."""
        variance = self.squares / self.count if self.count else 0.0
        return math.sqrt(variance) if variance > 1e-12 else 1.0

    def with_scores(self, scores: Tensor) -> RewardStatistics:
        """The statistics of all scores so far and ``scores`` [B]."""
        scores = scores.double()
        count = self.count + scores.numel()
        difference = scores.mean().item() - self.mean
        squares = (scores - scores.mean()).square().sum().item()
        return RewardStatistics(
            count=count,
            mean=self.mean + difference * scores.numel() / count,
            squares=self.squares + squares + difference**2 * self.count * scores.numel() / count,
        )


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """The affine map from preference-score units to reward units: (score - mean) / scale."""

    mean: float
    scale: float

    @classmethod
    def of(cls, statistics: RewardStatistics, settings: Reinforcement) -> Normalization:
        """As ``reward_normalization`` asks: centred, or centred and divided by the standard deviation."""
        divides = settings.reward_normalization == "mean_std"
        return cls(mean=statistics.mean, scale=statistics.std if divides else 1.0)

    def __call__(self, scores: Tensor) -> Tensor:
        return (scores - self.mean) / self.scale


def kl_coefficient(settings: KL, coefficient: float, sequence_kl: float, num_sequences: int) -> float:
    """The coefficient for the next batch.

    "adaptive" steers the mean KL *summed over a sequence*, in nats, to ``settings.target``: the coefficient changes by
    the relative error, cut to +-20%, times ``num_sequences / settings.horizon``.
    """
    if settings.controller == "fixed":
        return coefficient
    error = min(max(sequence_kl / settings.target - 1, -0.2), 0.2)
    return coefficient * (1 + error * num_sequences / settings.horizon)


def token_rewards(rewards: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """[B, T]: ``rewards`` [B] on each last response token, minus coefficient * (log pi - log ref) on every one."""
    penalties = -coefficient * (logprobs - ref_logprobs) * mask
    last = mask.sum(1) - 1
    return penalties.scatter_add(1, last.unsqueeze(1), rewards.to(penalties.dtype).unsqueeze(1))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns (advantage + value), both [B, T] and 0 where ``mask`` is False."""
    values = values * mask  # the value after the last token must be 0, not one of padding
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    errors = (rewards + gamma * following - values) * mask
    advantages = torch.zeros_like(errors)
    carried = torch.zeros_like(errors[:, 0])
    for t in reversed(range(errors.shape[1])):
        carried = errors[:, t] + gamma * lam * carried
        advantages[:, t] = carried
    return advantages * mask, (advantages + values) * mask


def rloo(returns: Tensor, group_size: int) -> Tensor:
    """Each return minus the mean of its group's others. ``returns`` [B], groups are consecutive; gives [B]."""
    groups = returns.view(-1, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).flatten()


def grpo(returns: Tensor, group_size: int) -> Tensor:
    """Each return standardised within its group. ``returns`` [B]; a group of equal returns gives zeros."""
    groups = returns.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + 1e-6)).flatten()


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the True entries of ``mask`` [B, T]; 0 elsewhere."""
    taken = values[mask]
    spread = taken.std(unbiased=False).clamp(min=1e-8)
    return (values - taken.mean()) / spread * mask


# ------------------------------------------------------------------------------------------------ the algorithms
def whitened_gae(settings: Reinforcement, rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """PPO's: GAE advantages, whitened over the batch, and returns for the value function."""
    advantages, returns = gae(rewards, values, mask, settings.gamma, settings.gae_lambda)
    return whiten(advantages, mask), returns


def per_response(
    group_advantages: Callable[[Tensor, int], Tensor],
    settings: Reinforcement,
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """One advantage for all tokens of a response, from the returns of its group; no value function, so no targets."""
    advantages = group_advantages(rewards.sum(1), settings.group_size)
    return advantages.unsqueeze(1) * mask, torch.zeros_like(rewards)


#: (settings, rewards [B, T], values [B, T], mask [B, T]) -> advantages and value targets, both [B, T].
Estimator = Callable[[Reinforcement, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

#: By the name of the algorithm: the only thing in which they differ. ``rlaif.config.algorithms`` has their demands.
ADVANTAGES: Mapping[str, Estimator] = {
    "ppo": whitened_gae,
    "rloo": partial(per_response, rloo),
    "grpo": partial(per_response, grpo),
}
