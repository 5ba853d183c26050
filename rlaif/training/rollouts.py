"""A batch of rollouts cut into every rank's micro-batches, and tensors moved between flat and rectangular form.

Legend: ``B`` rollouts of the batch, ``T`` its longest response, ``b`` rollouts of a micro-batch, ``W`` its padded
width, ``N`` its response tokens, row after row. The last token of a rollout predicts nothing, so it is no input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlaif.jobs import Rank
from rlaif.records import ScoredSample
from rlaif.training.batches import micro_batches, padded, spans


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward pass needs. ``rows`` is empty for a pass that only keeps the ranks in step."""

    rows: list[int]  #: b indices into the batch
    input_ids: Tensor  #: [b, W]
    positions: Tensor  #: [N] flat indices into [b, W]: the token before each response token
    targets: Tensor  #: [N] response token ids


def share(lengths: Sequence[int], rows: Sequence[int], max_tokens: int, rank: Rank) -> list[list[int]]:
    """This rank's micro-batches of ``rows``; as many as every other rank has, the missing ones empty.

    Every rank computes every rank's plan from the same lengths, so nothing needs to be agreed on.
    """
    order = sorted(rows, key=lambda row: lengths[row])
    plans = []
    for index in range(rank.world_size):
        mine = order[index :: rank.world_size]
        cut = micro_batches([lengths[row] for row in mine], max_tokens)
        plans.append([[mine[i] for i in batch] for batch in cut])
    num_passes = max(map(len, plans))
    own = plans[rank.index]
    return own + [[] for _ in range(num_passes - len(own))]


def micro_batch(samples: Sequence[ScoredSample], rows: list[int], device: torch.device) -> MicroBatch:
    """The tensors of ``rows``; a single token that stands for nothing when there are none."""
    if not rows:
        zero = torch.zeros(1, dtype=torch.long, device=device)
        return MicroBatch(rows=rows, input_ids=zero.unsqueeze(0), positions=zero, targets=zero)
    chosen = [samples[row] for row in rows]
    ids = padded([(*sample.prompt_ids, *sample.response_ids[:-1]) for sample in chosen], pad_id=0)
    starts = [len(sample.prompt_ids) - 1 for sample in chosen]
    ends = [start + len(sample.response_ids) for start, sample in zip(starts, chosen, strict=True)]
    targets = np.concatenate([sample.response_ids for sample in chosen])
    return MicroBatch(
        rows=rows,
        input_ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(spans(starts, ends, ids.shape[1])).to(device),
        targets=torch.from_numpy(targets).to(device),
    )


def flat(tensor: Tensor, mask: Tensor, micro: MicroBatch) -> Tensor:
    """The micro-batch's response tokens [N] of ``tensor`` [B, T], on its device; one zero for an empty one."""
    device = micro.targets.device
    if not micro.rows:
        return torch.zeros(1, device=device)
    return tensor[micro.rows][mask[micro.rows]].to(device)


def put(tensor: Tensor, mask: Tensor, micro: MicroBatch, values: Tensor) -> None:
    """Write ``values`` [N] to their places in ``tensor`` [B, T]."""
    if micro.rows:
        taken = mask[micro.rows]
        tensor[micro.rows] = torch.zeros(taken.shape).masked_scatter(taken, values.float().cpu())
