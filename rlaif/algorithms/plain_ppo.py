"""PPO in forty lines: what ``rlaif.training`` does to the run's first batch, written out for one process.

Read this first. Stock models, plain AdamW, one row at a time: nothing is padded, cut into micro-batches, or shared
among ranks. ``tests/parity/test_ppo_plain_loop.py`` holds the real learner to it: after the same batch both have the
same weights. Left out is what a first batch does not show: minibatches, rates that fall, running reward statistics, the
KL controller, the guard against over-refusal.

Legend: ``T`` response tokens of a row; position t of every tensor belongs to response token t.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlaif.config.schema import Reinforcement
from rlaif.records import ScoredSample


def plain_ppo(
    policy: nn.Module,
    reference: nn.Module,
    value: nn.Module,
    samples: Sequence[ScoredSample],
    settings: Reinforcement,
    temperature: float,
) -> None:
    """Learn ``samples`` as one minibatch, ``settings.epochs`` times; ``policy`` and ``value`` change in place.

    ``policy`` and ``reference`` are causal language models, ``value`` is a sequence classifier with one label.
    """
    num_tokens = sum(len(sample.response_ids) for sample in samples)
    mean = sum(sample.score for sample in samples) / len(samples)  # rewards and values are centred by it
    with torch.no_grad():
        old = [_logprobs(policy, sample, temperature) for sample in samples]
        ref = [_logprobs(reference, sample, temperature) for sample in samples]
        old_values = [_values(value, sample) - mean for sample in samples]
    advantages, returns = [], []
    for i, sample in enumerate(samples):
        rewards = -settings.kl.coefficient * (old[i] - ref[i])
        rewards[-1] += sample.score - mean - settings.truncation_penalty * (sample.finish_reason == "length")
        advantages.append(_advantages(rewards, old_values[i], settings))
        returns.append(advantages[i] + old_values[i])
    centre, spread = torch.cat(advantages).mean(), torch.cat(advantages).std(unbiased=False)
    optimizers = _adamw(policy, settings.learning_rate), _adamw(value, settings.value_learning_rate)
    for _ in range(settings.epochs):
        policy_loss, value_loss = torch.zeros(()), torch.zeros(())
        for i, sample in enumerate(samples):
            advantage = (advantages[i] - centre) / spread
            ratio = (_logprobs(policy, sample, temperature) - old[i]).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - settings.clip, 1 + settings.clip) * advantage)
            importance = (old[i] - torch.tensor(sample.logprobs)).exp().clamp(max=settings.importance_cap)
            policy_loss = policy_loss - (importance * surrogate).sum() / num_tokens
            values = _values(value, sample) - mean
            kept = old_values[i] + (values - old_values[i]).clamp(-settings.value_clip, settings.value_clip)
            errors = torch.maximum((values - returns[i]).square(), (kept - returns[i]).square())
            value_loss = value_loss + 0.5 * errors.sum() / num_tokens
        for model, optimizer, loss in zip((policy, value), optimizers, (policy_loss, value_loss), strict=True):
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()


def _logprobs(model: nn.Module, sample: ScoredSample, temperature: float) -> Tensor:
    """[T]: log-probability of each response token after all tokens before it."""
    ids = torch.tensor([*sample.prompt_ids, *sample.response_ids])
    logprobs = (model(ids.unsqueeze(0)).logits[0, :-1] / temperature).log_softmax(-1)
    return logprobs.gather(1, ids[1:].unsqueeze(1)).squeeze(1)[len(sample.prompt_ids) - 1 :]


def _values(model: nn.Module, sample: ScoredSample) -> Tensor:
    """[T]: the score of everything before each response token."""
    prefixes = ([*sample.prompt_ids, *sample.response_ids[:t]] for t in range(len(sample.response_ids)))
    return torch.stack([model(torch.tensor([ids])).logits[0, 0] for ids in prefixes])


def _advantages(rewards: Tensor, values: Tensor, settings: Reinforcement) -> Tensor:
    """[T]: GAE as the sum that it is (arXiv 1506.02438, equation 16)."""
    errors = rewards + settings.gamma * torch.cat([values[1:], torch.zeros(1)]) - values
    decay = settings.gamma * settings.gae_lambda
    return torch.stack([sum(decay**k * error for k, error in enumerate(errors[t:])) for t in range(len(errors))])


def _adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
