"""What the policy learner reports of a batch: metrics under ``reinforce/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import SupportsFloat

import numpy as np
import torch

from rlaif.algorithms.experience import rollout_logprobs
from rlaif.algorithms.over_refusal import boilerplate_rate
from rlaif.training.ppo_batch import PPOBatch


def describe_batch(batch: PPOBatch) -> dict[str, float]:
    """What a batch was like before it was learned."""
    samples, forwards, experience = batch.samples, batch.forwards, batch.experience
    mask = experience.mask
    gaps = (forwards.logprobs - rollout_logprobs(samples, mask))[mask]
    weights = gaps.exp()
    scores = torch.tensor([sample.score for sample in samples])
    staleness = [batch.before.version - sample.policy_version_start for sample in samples]
    figures = {
        "score/mean": scores.mean(),
        "score/std": scores.std(unbiased=False),
        "reward/mean": experience.rewards.mean(),
        "kl/sequence_mean": experience.sequence_kl.mean(),
        "kl/sqrt": experience.sequence_kl.mean().clamp(min=0).sqrt(),
        "kl/coefficient": batch.before.coefficient,
        "policy/entropy": forwards.entropy[mask].mean(),
        "gap/abs_logprob_difference": gaps.abs().mean(),
        "gap/effective_sample_size": weights.sum().square() / (weights.numel() * weights.square().sum()),
        "gap/staleness_mean": np.mean(staleness),
        "gap/staleness_max": max(staleness),
        **{f"gap/staleness_share_{age}": staleness.count(age) / len(samples) for age in sorted(set(staleness))},
        "response/length_mean": mask.sum() / len(samples),
        "response/truncated_fraction": np.mean([sample.finish_reason == "length" for sample in samples]),
        "data/num_samples": len(samples),
    }
    for axis in sorted({sample.axis for sample in samples}):
        figures[f"score/{axis}"] = np.mean([sample.score for sample in samples if sample.axis == axis])
    if (spread := experience.returns[mask].var(unbiased=False)) > 0:
        unexplained = (experience.returns - experience.values)[mask].var(unbiased=False)
        figures["value/explained_variance"] = 1 - unexplained / spread
    return _named(figures)


def describe_drift(batch: PPOBatch) -> dict[str, float]:
    """How far the answers have moved from the run's first batch; helpfulness only where prompts ask for help."""
    length = float(np.mean([len(sample.response_ids) for sample in batch.samples]))
    figures = {
        "response/length_drift": length / batch.guard.first_length - 1,
        "response/boilerplate_rate": boilerplate_rate([sample.response_ids for sample in batch.samples]),
    }
    if batch.guard.first_helpful is not None and batch.guard.helpful is not None:
        figures["helpfulness/level"] = batch.guard.helpful
        figures["helpfulness/of_sl_cai"] = batch.guard.first_helpful
        figures["helpfulness/weight"] = batch.helpful_weight
    return _named(figures)


def describe_steps(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over a batch's optimizer steps, without those that were skipped, which are counted."""
    figures: dict[str, SupportsFloat] = {}
    for name in steps[0]:
        network, figure = name.split("/")
        skipped = [bool(step[f"{network}/skipped"]) for step in steps]
        if figure == "skipped":
            figures[f"{network}/num_skipped_steps"] = sum(skipped)
        elif not all(skipped):
            figures[name] = np.mean([step[name] for step, out in zip(steps, skipped, strict=True) if not out])
    return _named(figures)


def _named(figures: Mapping[str, SupportsFloat]) -> dict[str, float]:
    return {f"reinforce/{name}": float(value) for name, value in figures.items()}
