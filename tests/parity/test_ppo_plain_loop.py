"""The policy learner against a plain loop: stock models, one row and one token at a time, plain AdamW."""

import math

import pytest
import torch
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlaif.jobs import Rank
from rlaif.training.ppo import PPOLearner
from tests.unit.training.conftest import ppo_job, rollouts, saved, tiny_lm, tiny_pm

TEMPERATURE, CLIP, VALUE_CLIP, CAP, BETA, LAMBDA, RATE = 0.8, 0.2, 0.2, 2.0, 0.1, 0.95, 1e-3
EPOCHS, PENALTY, MAX_NORM = 3, 1.0, 1.0


def token_logprobs(model, sample):
    ids = [*sample.prompt_ids, *sample.response_ids]
    logprobs = (model(torch.tensor([ids])).logits[0] / TEMPERATURE).log_softmax(-1)
    return [logprobs[t - 1, ids[t]] for t in range(len(sample.prompt_ids), len(ids))]


def token_values(model, sample, mean):
    prompts = ([*sample.prompt_ids, *sample.response_ids[:t]] for t in range(len(sample.response_ids)))
    return [model(torch.tensor([ids])).logits[0, 0] - mean for ids in prompts]


def plain_advantages(rewards, values):
    advantages = []
    for t in range(len(rewards)):
        total = 0.0
        for k in range(t, len(rewards)):
            after = values[k + 1] if k + 1 < len(values) else 0.0
            total += LAMBDA ** (k - t) * (rewards[k] + after - values[k])
        advantages.append(total)
    return advantages


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)


def plain_ppo(policy_path, scorer_path, samples):
    """One batch, one minibatch, several epochs."""
    policy = AutoModelForCausalLM.from_pretrained(policy_path)
    value = AutoModelForSequenceClassification.from_pretrained(scorer_path)
    mean = sum(s.score for s in samples) / len(samples)
    with torch.no_grad():
        old = [[x.item() for x in token_logprobs(policy, s)] for s in samples]
        old_values = [[x.item() for x in token_values(value, s, mean)] for s in samples]
    reference = old
    advantages, returns = [], []
    for sample, logprobs, refs, values in zip(samples, old, reference, old_values, strict=True):
        rewards = [-BETA * (lp - ref) for lp, ref in zip(logprobs, refs, strict=True)]
        rewards[-1] += sample.score - mean - PENALTY * (sample.finish_reason == "length")
        found = plain_advantages(rewards, values)
        advantages.append(found)
        returns.append([a + v for a, v in zip(found, values, strict=True)])
    everything = [a for row in advantages for a in row]
    centre = sum(everything) / len(everything)
    spread = math.sqrt(sum((a - centre) ** 2 for a in everything) / len(everything))
    optimizers = adam(policy), adam(value)
    for _ in range(EPOCHS):
        losses = [torch.zeros(()), torch.zeros(())]
        for i, sample in enumerate(samples):
            new, new_values = token_logprobs(policy, sample), token_values(value, sample, mean)
            for t in range(len(new)):
                advantage = (advantages[i][t] - centre) / spread
                ratio = (new[t] - old[i][t]).exp()
                surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
                weight = min(math.exp(old[i][t] - sample.logprobs[t]), CAP)
                losses[0] = losses[0] - weight * surrogate / len(everything)
                kept = old_values[i][t] + (new_values[t] - old_values[i][t]).clamp(-VALUE_CLIP, VALUE_CLIP)
                errors = (new_values[t] - returns[i][t]) ** 2, (kept - returns[i][t]) ** 2
                losses[1] = losses[1] + 0.5 * torch.maximum(*errors) / len(everything)
        for model, optimizer, loss in zip((policy, value), optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
    return policy, value, [loss.item() for loss in losses]


def test_learner_equals_the_plain_loop(tmp_path):
    policy_path = saved(tiny_lm(0, tied=True), tmp_path / "policy")
    scorer_path = saved(tiny_pm(1), tmp_path / "scorer")
    samples = rollouts(6)
    job = ppo_job(policy_path, scorer_path, minibatch_size=6, epochs=EPOCHS)
    assert (job.temperature, job.settings.kl.coefficient, job.settings.learning_rate) == (TEMPERATURE, BETA, RATE)
    learner = PPOLearner(job, Rank())
    learner.learn(samples)
    policy, value, _ = plain_ppo(policy_path, scorer_path, samples)
    before = AutoModelForCausalLM.from_pretrained(policy_path).state_dict()
    for name, tensor in learner.weights().tensors.items():
        expected = policy.state_dict()[name]
        assert (torch.from_numpy(tensor) - expected).abs().max() < 1e-4, name
        assert (before[name] - expected).abs().max() > 1e-3 or "norm" in name  # else the comparison would be empty
    state = learner._value.full_state()
    for name, expected in value.state_dict().items():
        assert (state[f"classifier.{name}"] - expected).abs().max() < 1e-4, name


def test_preference_training_equals_the_plain_loop(tmp_path):
    from rlaif.training.preference import run_preference
    from tests.unit.training.conftest import pair_rows, preference_job

    base = saved(tiny_lm(0, tied=True), tmp_path / "base")
    rows = pair_rows(6)
    job = preference_job(base, tmp_path / "pm")
    metrics = run_preference(job, Rank(), None, [rows] * 3, None, lambda metrics: None)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    head = model.score.weight
    with torch.no_grad():
        head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(0)) / 65)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(3):
        loss = torch.zeros(())
        for row in rows:
            first, second = (model(torch.tensor([row[f"input_ids_{n}"]])).logits[0, 0] for n in (1, 2))
            cross = row["prob"] * softplus(second - first) + (1 - row["prob"]) * softplus(first - second)
            loss = loss + row["weight"] * cross / sum(row["weight"] for row in rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert metrics["preference/fit/final_loss"] == pytest.approx(loss.item(), abs=1e-4)
