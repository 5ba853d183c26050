"""The losses, as pure functions of tensors: (loss, metrics).

Legend: ``N`` the response tokens of a micro-batch, flattened without padding; ``P`` its pairs.

Every loss is a sum divided by a *global* denominator that the caller counts over the whole optimizer step (all
micro-batches, all ranks): response tokens for policy, value and supervised losses, the sum of pair weights for the
preference loss. So losses and metrics of micro-batches and ranks are added, never averaged, and how a batch is cut
up does not change its gradient.

Sources: PPO, arXiv 1707.06347, sections 3 and 5; preference loss, HH, arXiv 2204.05862, section 4, with the soft
targets of Constitutional AI, arXiv 2212.08073, section 4.1.

Departures from the papers:
1. The value loss is clipped like the policy's (the original PPO code does it, the paper does not).
2. Each token's policy loss carries a truncated importance weight, exp(old - rollout) up to a cap, because the engine
   that sampled and the learner compute slightly different log-probabilities, and the samples may be older.
3. There is no entropy bonus, and policy and value have separate networks, so their losses are not added.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

Metrics = Mapping[str, Tensor]


def supervised_loss(logprobs: Tensor, num_tokens: float) -> Tensor:
    """Negative log-likelihood of the targets: ``logprobs`` [N], divided by the step's ``num_tokens``."""
    return -logprobs.sum() / num_tokens


def preference_loss(
    scores_1: Tensor, scores_2: Tensor, probs: Tensor, weights: Tensor, total_weight: float
) -> tuple[Tensor, Metrics]:
    """Cross-entropy of sigmoid(d), d = scores_1 - scores_2 [P], with soft targets ``probs`` [P] = P(1 better).

    p*softplus(-d) + (1-p)*softplus(d), weighted by ``weights`` [P] and divided by the step's ``total_weight``.
    Metrics count the pairs whose label is not a tie and those of them that the scores order likewise; equal scores are
    half right.
    """
    difference = scores_1 - scores_2
    losses = probs * functional.softplus(-difference) + (1 - probs) * functional.softplus(difference)
    loss = (weights * losses).sum() / total_weight
    with torch.no_grad():
        decided = probs != 0.5
        agreement = (1 + difference.sign() * (probs - 0.5).sign()) / 2
        metrics = {"num_agreed": (agreement * decided).sum(), "num_decided": decided.sum()}
    return loss, metrics


def importance_weights(old_logprobs: Tensor, rollout_logprobs: Tensor, cap: float) -> Tensor:
    """exp(learner's old - engine's rollout), truncated at ``cap``; same shape as its arguments."""
    return (old_logprobs - rollout_logprobs).exp().clamp(max=cap)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    importance: Tensor,
    clip: float,
    num_tokens: float,
) -> tuple[Tensor, Metrics]:
    """PPO's clipped surrogate, negated. All tensors [N]; only ``logprobs`` carries a gradient."""
    ratio = (logprobs - old_logprobs).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    loss = -(importance * surrogate).sum() / num_tokens
    with torch.no_grad():
        clipped = ((ratio - 1).abs() > clip).to(ratio.dtype)
        metrics = {"ratio": ratio.sum() / num_tokens, "clip_fraction": clipped.sum() / num_tokens}
    return loss, metrics


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip: float, num_tokens: float
) -> tuple[Tensor, Metrics]:
    """Half squared error, the worse of the value and the value kept within ``clip`` of the old one. All [N]."""
    kept = old_values + (values - old_values).clamp(-clip, clip)
    error, kept_error = (values - returns).square(), (kept - returns).square()
    loss = 0.5 * torch.maximum(error, kept_error).sum() / num_tokens
    with torch.no_grad():
        clipped = (kept_error > error).to(values.dtype)
        metrics = {"clip_fraction": clipped.sum() / num_tokens}
    return loss, metrics
