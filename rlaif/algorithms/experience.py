"""One batch as the learner sees it, rectangular and complete.

Legend: ``B`` rollouts in the batch's order, ``T`` the longest response; responses are left-aligned, padding follows.
Masks come from lengths and never from token ids: the padding id is often the EOS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlaif.algorithms.advantage import ADVANTAGES, Normalization, token_rewards
from rlaif.algorithms.losses import importance_weights
from rlaif.config.schema import Reinforcement
from rlaif.errors import DataError
from rlaif.records import ScoredSample


@dataclass(frozen=True, kw_only=True)
class Forwards:
    """What one pass over the batch computed, all [B, T] at the sampling temperature; 0 where the mask is False."""

    logprobs: Tensor  #: the policy's, before this batch is learned ("old")
    ref_logprobs: Tensor
    values: Tensor  #: in reward units; zeros without a value function
    entropy: Tensor  #: of the policy's next-token distribution


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A batch ready to be learned."""

    mask: Tensor  #: [B, T] bool
    logprobs: Tensor  #: [B, T] the policy's before learning
    values: Tensor  #: [B, T]
    importance: Tensor  #: [B, T] truncated exp(old - rollout)
    advantages: Tensor  #: [B, T] as used in the loss
    returns: Tensor  #: [B, T] targets of the value function
    rewards: Tensor  #: [B] normalised score minus truncation penalty
    sequence_kl: Tensor  #: [B] sum over the response of log policy - log reference


def check_samples(samples: Sequence[ScoredSample], group_size: int) -> None:
    """Raises DataError naming the first sample that cannot be learned from: no prompt, no response (its mask would
    be all zero), log-probabilities that do not match, numbers that are not finite, another version of the preference
    model than the first sample's, or a group of unequal prompts."""
    for sample in samples:
        if not sample.prompt_ids or not sample.response_ids:
            raise DataError(f"rollout {sample.id}: prompt_ids and response_ids must not be empty")
        if len(sample.logprobs) != len(sample.response_ids):
            raise DataError(
                f"rollout {sample.id}: {len(sample.logprobs)} logprobs for {len(sample.response_ids)} tokens"
            )
        if not all(map(math.isfinite, (sample.score, *sample.logprobs))):
            raise DataError(f"rollout {sample.id}: its score and log-probabilities must be finite")
        if sample.preference_model_version != samples[0].preference_model_version:
            versions = f"{sample.preference_model_version} and {samples[0].preference_model_version}"
            raise DataError(f"rollout {sample.id}: scored by preference models {versions} in one batch")
    if len(samples) % group_size:
        raise DataError(f"{len(samples)} rollouts cannot be cut into groups of {group_size}")
    for first in range(0, len(samples), group_size):
        group = samples[first : first + group_size]
        if any(sample.prompt_ids != group[0].prompt_ids for sample in group):
            raise DataError(f"rollouts from {group[0].id} on: {group_size} in a row must share one prompt")


def not_finite(samples: Sequence[ScoredSample], forwards: Forwards, group_size: int) -> frozenset[str]:
    """The ids of the samples for which ``forwards`` hold NaN or infinity, and of the others of their groups, whose
    baselines would be others without them."""
    computed = torch.stack((forwards.logprobs, forwards.ref_logprobs, forwards.values))
    sound = computed.isfinite().all(0).all(1).reshape(-1, group_size).all(1).repeat_interleave(group_size)
    return frozenset(sample.id for sample, is_sound in zip(samples, sound.tolist(), strict=True) if not is_sound)


def response_mask(samples: Sequence[ScoredSample]) -> Tensor:
    """[B, T] bool, from lengths."""
    lengths = torch.tensor([len(sample.response_ids) for sample in samples])
    return torch.arange(int(lengths.max())) < lengths.unsqueeze(1)


def rollout_logprobs(samples: Sequence[ScoredSample], mask: Tensor) -> Tensor:
    """The engine's log-probabilities as [B, T]; 0 where ``mask`` is False."""
    flat = torch.tensor([value for sample in samples for value in sample.logprobs], dtype=torch.float32)
    return torch.zeros(mask.shape).masked_scatter(mask, flat)


def rewards(samples: Sequence[ScoredSample], normalize: Normalization, truncation_penalty: float) -> Tensor:
    """[B]: normalised scores, less the penalty where the answer was cut at the length limit."""
    scores = torch.tensor([sample.score for sample in samples], dtype=torch.float32)
    truncated = torch.tensor([sample.finish_reason == "length" for sample in samples])
    return normalize(scores) - truncation_penalty * truncated


def experience(
    samples: Sequence[ScoredSample],
    forwards: Forwards,
    settings: Reinforcement,
    normalize: Normalization,
    coefficient: float,
    helpful_weight: float = 1.0,
) -> Experience:
    """Everything the losses need, from the samples and what the learner computed on them.

    ``coefficient`` is that of the KL penalty. ``helpful_weight`` multiplies the advantages of helpful prompts: see
    ``over_refusal``.
    """
    mask = response_mask(samples)
    scored = rewards(samples, normalize, settings.truncation_penalty)
    per_token = token_rewards(scored, forwards.logprobs, forwards.ref_logprobs, mask, coefficient)
    estimated, returns = ADVANTAGES[settings.algorithm](settings, per_token, forwards.values, mask)
    weights = torch.tensor([helpful_weight if sample.axis == "helpful" else 1.0 for sample in samples])
    rolled = rollout_logprobs(samples, mask)
    return Experience(
        mask=mask,
        logprobs=forwards.logprobs,
        values=forwards.values,
        importance=importance_weights(forwards.logprobs, rolled, settings.importance_cap) * mask,
        advantages=estimated * weights.unsqueeze(1),
        returns=returns,
        rewards=scored,
        sequence_kl=((forwards.logprobs - forwards.ref_logprobs) * mask).sum(1),
    )
