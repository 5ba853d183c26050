import pytest
import torch

from rlaif.miniature.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_singular_vectors_stay_and_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalize(matrix)
    assert found.shape == matrix.shape and found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ found @ right.T
    assert (turned - turned.diag().diag()).abs().max() < 1e-4


def test_its_steps_are_those_of_torch_but_for_the_rounding_of_bfloat16():
    torch.manual_seed(0)
    start, gradients = torch.randn(24, 8), torch.randn(5, 24, 8)
    ends = []
    for make in (lambda p: Muon(p, lr=0.1), lambda p: torch.optim.Muon(p, lr=0.1, weight_decay=0.0)):
        matrix = torch.nn.Parameter(start.clone())
        optimizer = make([matrix])
        for gradient in gradients:
            matrix.grad = gradient.clone()
            optimizer.step()
        ends.append(matrix.detach())
    moved = (ends[1] - start).norm()
    assert (ends[0] - ends[1]).norm() < 0.05 * moved
