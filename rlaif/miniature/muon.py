"""Muon, an optimizer for the matrices between layers: momentum with all its singular values brought close to one.

Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.

Departure from the source, and from ``torch.optim.Muon``: 1. the iteration runs in float32 instead of bfloat16. On CPUs
without bfloat16 instructions (laptops, servers before 2023) torch multiplies such matrices element by element, and a
miniature took twelve minutes instead of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """With Nesterov momentum and without weight decay. Parameters are matrices."""

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonalize(matrix.grad.lerp(momentum, MOMENTUM))
                rows, columns = matrix.shape
                matrix.sub_(update, alpha=group["lr"] * math.sqrt(max(1, rows / columns)))


def orthogonalize(matrix: Tensor) -> Tensor:
    """``matrix`` with its singular values brought close to one: five Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
