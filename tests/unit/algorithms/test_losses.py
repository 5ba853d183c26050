"""Losses: the method's numbers, clipping, and no effect of splitting a batch into micro-batches."""

import math

import pytest
import torch

from rlaif.algorithms.losses import importance_weights, policy_loss, preference_loss, supervised_loss, value_loss


def pair_loss(difference: float, prob: float) -> float:
    scores = torch.tensor([difference], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return preference_loss(scores, 0 * scores, prob * one, one, 1.0)[0].item()


@pytest.mark.parametrize(
    ("difference", "expected"), [(0, 0.693147), (0.5, 0.474077), (1, 0.313262), (2, 0.126928), (-1, 1.313262)]
)
def test_hard_label_loss(difference, expected):
    assert pair_loss(difference, 1.0) == pytest.approx(expected, abs=1e-6)
    assert pair_loss(-difference, 0.0) == pytest.approx(expected, abs=1e-6)


def test_soft_label_loss_and_its_minimum():
    assert pair_loss(1.0, 0.6) == pytest.approx(0.713262, abs=1e-6)
    assert pair_loss(0.405465, 0.6) == pytest.approx(0.673012, abs=1e-6)
    assert min(pair_loss(d / 1000, 0.6) for d in range(-1000, 1000)) >= pair_loss(math.log(1.5), 0.6)


def test_preference_loss_weighs_pairs_and_leaves_ties_out_of_the_counts():
    first, second = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 3.0, 5.0])
    probs, weights = torch.tensor([1.0, 0.8, 0.5]), torch.tensor([1.0, 3.0, 2.0])
    loss, metrics = preference_loss(first, second, probs, weights, 6.0)
    expected = (pair_loss(1, 1.0) + 3 * pair_loss(-1, 0.8) + 2 * pair_loss(-5, 0.5)) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert (metrics["num_agreed"].item(), metrics["num_decided"].item()) == (1, 2)


@pytest.mark.parametrize("cuts", [[7], [3, 4], [1, 1, 5]])
def test_micro_batches_add_up_to_the_whole(cuts):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, generator=generator, requires_grad=True)
    inputs, old, advantages = (torch.randn(7, 5, generator=generator), *torch.randn(2, 7, generator=generator))
    importance = torch.rand(7, generator=generator)

    def gradient(parts):
        weight.grad = None
        for chosen in parts:
            outputs = inputs[chosen] @ weight
            args = old[chosen], advantages[chosen]
            losses = [
                supervised_loss(outputs, 7),
                policy_loss(outputs, *args, importance[chosen], 0.2, 7)[0],
                value_loss(outputs, *args, 0.2, 7)[0],
                preference_loss(outputs, old[chosen], importance[chosen], importance[chosen], 3.0)[0],
            ]
            sum(losses).backward()
        return weight.grad.clone()

    torch.testing.assert_close(gradient(torch.arange(7).split(cuts)), gradient([torch.arange(7)]))


def test_policy_gradient_stops_where_the_ratio_is_clipped():
    logprobs = torch.tensor([math.log(1.5), math.log(0.5), math.log(1.5), math.log(0.5)], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0])
    loss, metrics = policy_loss(logprobs, torch.zeros(4), advantages, torch.ones(4), 0.2, 4)
    loss.backward()
    assert loss.item() == pytest.approx(-(1.2 - 0.8 - 1.5 + 0.5) / 4)
    assert logprobs.grad.tolist() == pytest.approx([0, 0, 1.5 / 4, -0.5 / 4])
    assert metrics["clip_fraction"].item() == 1.0
    assert metrics["ratio"].item() == pytest.approx(1.0)


def test_value_loss_takes_the_worse_of_both_errors():
    values = torch.tensor([1.0, 0.1], requires_grad=True)
    loss, metrics = value_loss(values, torch.zeros(2), torch.tensor([1.0, 1.0]), 0.2, 2)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (0.8**2 + 0.9**2) / 2)
    assert values.grad.tolist() == pytest.approx([0.0, -0.9 / 2])
    assert metrics["clip_fraction"].item() == 0.5


def test_importance_weights_are_truncated():
    weights = importance_weights(torch.tensor([0.0, 1.0, -1.0]), torch.zeros(3), 2.0)
    assert weights.tolist() == pytest.approx([1.0, 2.0, math.exp(-1)])


def test_equal_scores_are_half_right_whichever_answer_is_the_first():
    zero, weight = torch.zeros(1), torch.ones(1)
    for prob in (0.9, 0.1):
        _, metrics = preference_loss(zero, zero, torch.tensor([prob]), weight, 1.0)
        assert (metrics["num_agreed"], metrics["num_decided"]) == (0.5, 1)
