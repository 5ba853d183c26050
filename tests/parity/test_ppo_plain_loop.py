"""The learners against the formulas written out: stock models, one row at a time, plain AdamW."""

import pytest
import torch
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlaif.algorithms.plain_ppo import plain_ppo
from rlaif.jobs import Rank
from rlaif.training.ppo import PPOLearner
from tests.tiny_models import tensors_of
from tests.unit.training.conftest import full_state, ppo_job, rollouts, saved, tiny_lm, tiny_pm


def test_learner_equals_the_plain_loop(tmp_path):
    policy_path = saved(tiny_lm(0, tied=True), tmp_path / "policy")
    scorer_path = saved(tiny_pm(1), tmp_path / "scorer")
    samples = rollouts(6)
    job = ppo_job(policy_path, scorer_path, minibatch_size=6, epochs=3)
    used = job.settings
    assert (job.temperature, used.kl.coefficient) == (0.8, 0.1)
    assert (used.learning_rate, used.value_learning_rate) == (1e-3, 1e-3)
    assert (used.clip, used.value_clip, used.importance_cap, used.gae_lambda, used.gamma) == (0.2, 0.2, 2.0, 0.95, 1.0)
    assert (used.epochs, used.truncation_penalty, used.max_grad_norm) == (3, 1.0, 1.0)
    learner = PPOLearner(job, Rank())
    learner.learn(samples)
    policy, reference = (AutoModelForCausalLM.from_pretrained(policy_path) for _ in range(2))
    value = AutoModelForSequenceClassification.from_pretrained(scorer_path)
    plain_ppo(policy, reference, value, samples, job.settings, job.temperature)
    before = AutoModelForCausalLM.from_pretrained(policy_path).state_dict()
    for name, tensor in tensors_of(learner.weights()).items():
        expected = policy.state_dict()[name]
        assert (torch.from_numpy(tensor) - expected).abs().max() < 1e-4, name
        assert (before[name] - expected).abs().max() > 1e-3 or "norm" in name  # else the comparison would be empty
    state = full_state(learner._networks.value)
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
