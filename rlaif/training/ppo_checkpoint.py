"""A checkpoint of the policy learner while it is written: policy, value function, and the state between two batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlaif.jobs import Rank
from rlaif.training.checkpoint_files import CheckpointWriter
from rlaif.training.collectives import max_over_ranks, wait_for_all
from rlaif.training.ppo_batch import LearnerState


@dataclass(frozen=True, kw_only=True)
class PPOCheckpoint:
    """One rank's part of it. ``state`` is that of the time at which ``writers`` were made."""

    path: Path
    writers: Sequence[CheckpointWriter]
    state: LearnerState

    def finish(self, rank: Rank, device: torch.device) -> bool:
        """Finish it if all ranks have written their files by now; returns whether they have, on all ranks. Raises what
        writing this rank's raised."""
        num_unwritten = sum(not writer.is_written() for writer in self.writers)
        if max_over_ranks(num_unwritten, rank, device):
            return False
        for writer in self.writers:
            writer.finish()
        if rank.index == 0:  # last, so that a checkpoint with this file is whole
            self.state.save(self.path)
        wait_for_all(rank)
        return True
