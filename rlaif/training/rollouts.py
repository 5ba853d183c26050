"""A batch of rollouts cut into minibatches and each rank's micro-batches, and tensors moved between flat and
rectangular form.

Legend: ``B`` rollouts of the batch, ``T`` its longest response, ``b`` rollouts of a micro-batch, ``W`` its padded
width, ``N`` its response tokens, row after row. The last token of a rollout predicts nothing, so it is no input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlaif.jobs import Rank
from rlaif.records import ScoredSample
from rlaif.training.batches import micro_batches, pad_right, spans


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward pass needs."""

    rows: list[int]  #: b indices into the batch; none for a pass that only keeps the ranks together
    input_ids: Tensor  #: [b, W]
    positions: Tensor  #: [N] flat indices into [b, W]: the token before each response token
    targets: Tensor  #: [N] response token ids


def sequence_lengths(samples: Sequence[ScoredSample]) -> list[int]:
    """Prompt and response together, [B]."""
    return [len(sample.prompt_ids) + len(sample.response_ids) for sample in samples]


def draw_minibatches(num_samples: int, size: int, epochs: int, key: tuple[int, int]) -> Iterator[list[int]]:
    """Rows of each optimizer step: every row once an epoch, in a new order each, drawn by ``key``; the tail is kept."""
    for epoch in range(epochs):
        order = np.random.default_rng((*key, epoch)).permutation(num_samples).tolist()
        for first in range(0, num_samples, size):
            yield order[first : first + size]


def rank_share(lengths: Sequence[int], rows: Sequence[int], max_tokens: int, rank: Rank) -> list[list[int]]:
    """This rank's share of ``rows``, cut into micro-batches. Shares hold rows of all lengths."""
    order = sorted(rows, key=lambda row: lengths[row])
    mine = order[rank.index :: rank.world_size]
    plan = micro_batches([lengths[row] for row in mine], max_tokens)
    return [[mine[index] for index in batch] for batch in plan]


def micro_batch(samples: Sequence[ScoredSample], rows: list[int], device: torch.device) -> MicroBatch:
    """The tensors of ``rows``."""
    chosen = [samples[row] for row in rows]
    ids = pad_right([(*sample.prompt_ids, *sample.response_ids[:-1]) for sample in chosen], pad_id=0)
    starts = [len(sample.prompt_ids) - 1 for sample in chosen]
    ends = [start + len(sample.response_ids) for start, sample in zip(starts, chosen, strict=True)]
    targets = np.array([token for sample in chosen for token in sample.response_ids], dtype=np.int64)
    return MicroBatch(
        rows=rows,
        input_ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(spans(starts, ends, ids.shape[1])).to(device),
        targets=torch.from_numpy(targets).to(device),
    )


def take_tokens(tensor: Tensor, mask: Tensor, micro: MicroBatch) -> Tensor:
    """The micro-batch's response tokens [N] of ``tensor`` [B, T], on its device."""
    return tensor[micro.rows][mask[micro.rows]].to(micro.targets.device)


def put_tokens(tensor: Tensor, mask: Tensor, micro: MicroBatch, values: Tensor) -> None:
    """Write ``values`` [N] to their places in ``tensor`` [B, T]."""
    rows_mask = mask[micro.rows]
    tensor[micro.rows] = torch.zeros(rows_mask.shape).masked_scatter(rows_mask, values.float().cpu())
