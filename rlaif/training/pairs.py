"""Pairs of dialogues as tensors, and pairs that are too long for one micro-batch, split into their sides.

Legend: ``P`` pairs, ``N`` dialogues, ``T`` padded width.

The preference loss depends on the weights through the two scores s of a pair alone, so its gradient is the sum over
both sides of (d loss / d s) (d s / d weights). The first factor needs the values of both scores, and comes from passes
without a gradient; then each side goes through a pass of its own, whenever it fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlaif.algorithms.losses import Metrics, preference_loss
from rlaif.training.batches import TrainingRow, pad_right


@dataclass(frozen=True, kw_only=True)
class PairSide:
    """One dialogue of a pair that is split. Losses and counts are only ever summed: one side carries those of all."""

    input_ids: Sequence[int]
    slope: float  #: of the loss at this side's score
    loss: float = 0.0
    num_agreed: float = 0.0
    num_decided: float = 0.0


def dialogues(rows: Sequence[TrainingRow]) -> list[Sequence[int]]:
    """The token ids [2P] of both sides, all first dialogues before the second ones."""
    return [row[side] for side in ("input_ids_1", "input_ids_2") for row in rows]


def longest(row: TrainingRow) -> int:
    """Tokens of the longer dialogue."""
    return max(len(row["input_ids_1"]), len(row["input_ids_2"]))


def labels(rows: Sequence[TrainingRow], device: torch.device) -> tuple[Tensor, Tensor]:
    """P(1 better) [P], and the weights [P]."""
    probs, weights = (torch.tensor([row[key] for row in rows], device=device) for key in ("prob", "weight"))
    return probs, weights


def last_tokens(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Padded ids [N, T] and the flat positions [N] of their last tokens."""
    ids = pad_right(sequences, pad_id=0)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    last = np.arange(len(sequences)) * ids.shape[1] + lengths - 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(last).to(device)


def split(rows: Sequence[TrainingRow], scores: Tensor, total_weight: float) -> list[PairSide]:
    """The sides of ``rows``, whose ``scores`` [2P] are in the order of ``dialogues``."""
    if not rows:
        return []
    scores = scores.detach().requires_grad_()
    first, second = scores.chunk(2)
    loss, counts = preference_loss(first, second, *labels(rows, scores.device), total_weight)
    (slopes,) = torch.autograd.grad(loss, scores)
    totals = {"loss": loss.item(), **{name: count.item() for name, count in counts.items()}}
    sides = zip(dialogues(rows), slopes.tolist(), [totals] + [{}] * (len(scores) - 1), strict=True)
    return [PairSide(input_ids=ids, slope=slope, **carried) for ids, slope, carried in sides]


def side_loss(sides: Sequence[PairSide], scores: Tensor) -> tuple[Tensor, Metrics]:
    """As ``preference_loss``, from the scores [N] of a micro-batch of sides."""
    slopes = torch.tensor([side.slope for side in sides], device=scores.device)
    loss = (slopes * (scores - scores.detach())).sum() + sum(side.loss for side in sides)
    counts = {name: sum(getattr(side, name) for side in sides) for name in ("num_agreed", "num_decided")}
    return loss, {name: loss.new_tensor(count) for name, count in counts.items()}
