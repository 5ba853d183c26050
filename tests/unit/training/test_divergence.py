"""Training that computes NaN or infinity: no weight is touched, and it does not go on for long."""

import math
from dataclasses import replace

import pytest
import torch

from rlaif.config.trainer import Trainer
from rlaif.errors import DivergenceError
from rlaif.jobs import Rank
from rlaif.training.deepspeed import DeepSpeedModel, start_rank
from rlaif.training.ppo import PPOLearner
from rlaif.training.ppo_report import describe_steps
from rlaif.training.preference import run_preference
from rlaif.training.sft import run_sft
from tests.tiny_models import saved, tensors_of, tiny_lm
from tests.unit.training.conftest import (
    TRAINER,
    full_state,
    in_batches,
    pair_rows,
    ppo_job,
    preference_job,
    rollouts,
    sft_job,
    sft_rows,
)

ODD = 255  #: a token whose embedding is not finite


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> str:
    """A policy that computes NaN from token ``ODD`` on, and finite numbers without it."""
    model = tiny_lm(2, tied=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[ODD] = math.nan
    return saved(model, tmp_path_factory.mktemp("damaged"))


def optimized(trainer: Trainer) -> DeepSpeedModel:
    start_rank(Rank(), trainer)
    torch.manual_seed(0)
    return DeepSpeedModel(torch.nn.Linear(3, 1), trainer, Rank(), learning_rate=0.1)


def step(model: DeepSpeedModel, *factors: float) -> dict[str, float]:
    """One optimizer step with a micro-batch for each factor, which its loss is multiplied by."""
    dtype = model.module.weight.dtype

    def loss_of(rows):
        inputs = torch.ones(1, 3, dtype=dtype)
        return model(inputs).sum() * torch.tensor(rows[0] if rows else 0.0, dtype=dtype), {}

    return model.step([[factor] for factor in factors], loss_of)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize(("zero_stage", "dtype"), [*((stage, "float32") for stage in range(4)), (0, "bfloat16")])
def test_a_step_whose_gradient_is_not_finite_changes_nothing(zero_stage, dtype, factor):
    """Without a trace: the weights after the next step are those of a run that never had it."""
    trainer = Trainer(zero_stage=zero_stage, dtype=dtype)
    found = []
    for bad in ([], [factor]):
        model = optimized(trainer)
        step(model, 1.0)
        before = full_state(model)
        for value in bad:
            assert step(model, 1.0, value, 1.0)["skipped"] == 1
            after = full_state(model)
            assert all(torch.equal(after[name], before[name]) for name in before)
        assert step(model, 2.0)["skipped"] == 0
        assert model.skipped.num == len(bad)
        found.append(full_state(model))
        model.close()
    assert all(torch.equal(found[1][name], tensor) for name, tensor in found[0].items())
    assert not torch.equal(found[0]["weight"], before["weight"])


def test_too_many_such_steps_end_training_with_what_to_look_at():
    model = optimized(Trainer(max_skipped_steps=1))
    step(model, math.nan)
    with pytest.raises(DivergenceError, match=r"step 2 .*2 steps were skipped.*max_skipped_steps.*learning rate"):
        step(model, math.nan)
    model.close()


def test_a_damaged_base_model_is_not_tuned(damaged, tmp_path):
    rows = [{**row, "input_ids": [ODD, *row["input_ids"]]} for row in sft_rows(8)]
    with pytest.raises(DivergenceError, match="no optimizer step had a finite gradient"):
        run_sft(sft_job(damaged, tmp_path), Rank(), [rows], lambda _: None)
    with pytest.raises(DivergenceError, match="max_skipped_steps"):
        run_sft(sft_job(damaged, tmp_path), Rank(), [rows] * 9, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_steps_that_were_skipped_are_counted_and_not_averaged(damaged, tmp_path):
    sound, odd = sft_rows(16)[:8], [{**row, "input_ids": [ODD, *row["input_ids"]]} for row in sft_rows(8)]
    metrics = run_sft(sft_job(damaged, tmp_path), Rank(), [sound, odd, sound], lambda _: None)
    assert metrics["supervise/optimization/num_steps"] == 2
    assert metrics["supervise/optimization/num_skipped_steps"] == 1
    assert math.isfinite(metrics["supervise/loss/final"])


def test_a_preference_model_that_diverges_is_not_saved(base, tmp_path):
    rows = pair_rows(16)
    job = preference_job(base, tmp_path / "model", TRAINER)
    fit = job.settings.fit.model_copy(update={"learning_rate": 1e30})
    job = replace(job, settings=job.settings.model_copy(update={"fit": fit}))
    with pytest.raises(DivergenceError):
        run_preference(job, Rank(), None, in_batches(rows), rows, lambda _: None)
    assert not (tmp_path / "model").exists()


# -------------------------------------------------------------------------------------------------------- PPO
def with_odd_token(samples: list, *numbers: int) -> list:
    return [replace(s, prompt_ids=(ODD, *s.prompt_ids)) if i in numbers else s for i, s in enumerate(samples)]


def without_odd_token(samples: list) -> list:
    plain = [tuple(0 if id == ODD else id for id in s.prompt_ids) for s in samples]
    answers = [tuple(0 if id == ODD else id for id in s.response_ids) for s in samples]
    return [replace(s, prompt_ids=p, response_ids=a) for s, p, a in zip(samples, plain, answers, strict=True)]


def test_a_rollout_without_finite_numbers_is_left_out_and_leaves_no_trace(damaged, scorer):
    samples = without_odd_token(rollouts(16))
    tainted, others = with_odd_token(samples, 3, 8), [s for i, s in enumerate(samples) if i not in (3, 8)]
    learner, undisturbed = (PPOLearner(ppo_job(damaged, scorer, epochs=1), Rank()) for _ in range(2))
    learned, expected = learner.learn(tainted), undisturbed.learn(others)
    assert learned.left_out == {samples[3].id, samples[8].id}
    assert learned.kl == expected.kl and learned.advantage_mean == expected.advantage_mean
    assert all(map(math.isfinite, (*learned.kl, *learned.advantage_mean)))
    weights, of_others = tensors_of(learner.weights()), tensors_of(undisturbed.weights())
    assert all((weights[name] == of_others[name])[: ODD - 1].all() for name in weights)


def test_a_group_is_left_out_whole(damaged, scorer):
    samples = without_odd_token(rollouts(16, group_size=4))
    samples[5] = replace(samples[5], response_ids=(ODD, *samples[5].response_ids[1:]))
    learner = PPOLearner(ppo_job(damaged, scorer, algorithm="rloo", group_size=4, epochs=1), Rank())
    assert learner.learn(samples).left_out == {sample.id for sample in samples[4:8]}


def test_a_batch_without_any_finite_number_ends_the_run(damaged, scorer):
    samples = with_odd_token(rollouts(4), 0, 1, 2, 3)
    with pytest.raises(DivergenceError, match="nothing finite for batch 0"):
        PPOLearner(ppo_job(damaged, scorer), Rank()).learn(samples)


def test_means_over_steps_leave_skipped_ones_out():
    steps = [
        {"policy/loss": 1.0, "policy/skipped": 0.0, "value/loss": math.nan, "value/skipped": 1.0},
        {"policy/loss": math.nan, "policy/skipped": 1.0, "value/loss": math.nan, "value/skipped": 1.0},
        {"policy/loss": 3.0, "policy/skipped": 0.0, "value/loss": math.nan, "value/skipped": 1.0},
    ]
    assert describe_steps(steps) == {
        "reinforce/policy/loss": 2.0,
        "reinforce/policy/num_skipped_steps": 1.0,
        "reinforce/value/num_skipped_steps": 3.0,
    }
