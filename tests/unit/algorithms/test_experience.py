"""From samples to the tensors for the losses."""

import math
from dataclasses import replace

import pytest
import torch

from rlaif.algorithms.advantage import Normalization
from rlaif.algorithms.experience import Forwards, check_samples, experience, response_mask, rewards, rollout_logprobs
from rlaif.config.algorithms import ALGORITHMS
from rlaif.config.schema import Reinforcement
from rlaif.errors import DataError
from rlaif.records import ScoredSample

EOS = 0


def sample(number: int, length: int, **changes) -> ScoredSample:
    made = ScoredSample(
        id=f"prompts.jsonl:{number}",
        axis="red_team",
        prompt_ids=(5, 6),
        response_ids=(*range(7, 6 + length), EOS),
        logprobs=tuple(-0.5 * t - number for t in range(length)),
        finish_reason="stop",
        score=float(number),
        policy_version_start=0,
        preference_model_version=0,
    )
    return replace(made, **changes)


def test_mask_comes_from_lengths_also_when_padding_ids_are_in_the_response():
    samples = [sample(0, 3), sample(1, 5, response_ids=(EOS,) * 5)]
    assert response_mask(samples).sum(1).tolist() == [3, 5]
    placed = rollout_logprobs(samples, response_mask(samples))
    assert placed[0].tolist() == [0.0, -0.5, -1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"response_ids": (), "logprobs": ()}, "must not be empty"),
        ({"prompt_ids": ()}, "must not be empty"),
        ({"logprobs": (-1.0,)}, "1 logprobs for 3 tokens"),
        ({"logprobs": (-1.0, math.nan, -1.0)}, "must be finite"),
        ({"score": math.inf}, "must be finite"),
    ],
)
def test_a_sample_that_cannot_be_learned_is_named(changes, said):
    with pytest.raises(DataError, match=said) as caught:
        check_samples([sample(0, 3), sample(17, 3, **changes)], 1)
    assert "prompts.jsonl:17" in str(caught.value)


def test_groups_must_be_whole_and_of_one_prompt():
    with pytest.raises(DataError, match="groups of 2"):
        check_samples([sample(0, 3)], 2)
    with pytest.raises(DataError, match="share one prompt"):
        check_samples([sample(0, 3), sample(1, 3, prompt_ids=(9,))], 2)
    check_samples([sample(0, 3), sample(1, 4)], 2)


def test_truncated_answers_pay_the_penalty_after_normalisation():
    samples = [sample(3, 2), sample(5, 2, finish_reason="length")]
    found = rewards(samples, Normalization(mean=1.0, scale=2.0), truncation_penalty=0.75)
    assert found.tolist() == pytest.approx([1.0, 2.0 - 0.75])


def forwards_for(samples) -> Forwards:
    mask = response_mask(samples)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(mask.shape, generator=generator) * mask for _ in range(4)]
    return Forwards(**dict(zip(("logprobs", "ref_logprobs", "values", "entropy"), tensors, strict=True)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithms_differ_in_the_advantage_alone(algorithm):
    samples = [sample(n, length) for n, length in enumerate([3, 5, 2, 4])]
    forwards = forwards_for(samples)
    normalize = Normalization(mean=0.0, scale=1.0)
    settings = Reinforcement(algorithm=algorithm, group_size=2)
    found = experience(samples, forwards, settings, normalize, 0.1)
    plain = experience(samples, forwards, Reinforcement(group_size=2), normalize, 0.1)
    for name in ("mask", "logprobs", "values", "importance", "rewards", "sequence_kl"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name))
    assert not found.advantages[~found.mask].any()


@pytest.mark.parametrize(
    ("algorithm", "of_difference"), [("rloo", lambda d: d), ("grpo", lambda d: math.copysign(2**-0.5, d))]
)
def test_an_advantage_of_a_response_is_that_of_each_of_its_tokens(algorithm, of_difference):
    samples = [sample(n, length) for n, length in enumerate([3, 5, 2, 4])]
    settings = Reinforcement(algorithm=algorithm, group_size=2)
    found = experience(samples, forwards_for(samples), settings, Normalization(mean=0.0, scale=1.0), 0.1)
    totals = found.rewards - 0.1 * found.sequence_kl
    expected = of_difference((totals[0] - totals[1]).item())
    assert found.advantages[0, 0].item() == pytest.approx(expected, rel=1e-3)
    assert found.advantages[0, 0] == found.advantages[0, 2]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_helpful_weight_multiplies_advantages_of_helpful_prompts_alone(algorithm):
    samples = [sample(n, 3, axis="helpful" if n < 2 else "red_team") for n in range(4)]
    forwards, settings = forwards_for(samples), Reinforcement(algorithm=algorithm, group_size=2)
    normalize = Normalization(mean=0.0, scale=1.0)
    plain = experience(samples, forwards, settings, normalize, 0.1)
    weighted = experience(samples, forwards, settings, normalize, 0.1, helpful_weight=3.0)
    torch.testing.assert_close(weighted.advantages[:2], 3 * plain.advantages[:2])
    torch.testing.assert_close(weighted.advantages[2:], plain.advantages[2:])
    torch.testing.assert_close(weighted.returns, plain.returns)


def test_importance_is_truncated_and_zero_on_padding():
    samples = [sample(0, 2, logprobs=(-10.0, -0.1)), sample(1, 3)]
    found = experience(samples, forwards_for(samples), Reinforcement(), Normalization(mean=0, scale=1), 0.1)
    assert found.importance[0, 0].item() == 2.0
    assert found.importance[0, 2].item() == 0.0
