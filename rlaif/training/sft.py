"""Supervised fine-tuning: what one rank does. Constitutional AI, arXiv 2212.08073, section 3.1.

Legend: ``N`` target tokens of a micro-batch. Targets are ``input_ids[prompt_length:]``, EOS included; each step's loss
is their summed negative log-likelihood divided by their number in the whole step, over all ranks.

Departures from the paper:
1. The loss covers the answer only, not the prompt.
2. Dialogues are cut at turns before they become rows (``training_rows``); a row that is still too long is left out.
3. Constant rate after a linear warm-up; the paper's constant rate is ``warmup_steps: 0``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rlaif.algorithms.losses import Metrics, supervised_loss
from rlaif.errors import DataError
from rlaif.jobs import Rank, Report, SFTJob
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.training.batches import TrainingRow, micro_batches, pad_right, spans
from rlaif.training.collectives import sum_over_ranks
from rlaif.training.deepspeed import DeepSpeedModel, start_rank
from rlaif.training.deepspeed_config import partition_config
from rlaif.training.divergence import diverged
from rlaif.training.models import load_policy
from rlaif.training.saving import end_with_eos, save_model


def run_sft(job: SFTJob, rank: Rank, batches: Iterable[list[TrainingRow]], report: Report) -> dict[str, float]:
    """Train on ``batches``, this rank's share of each optimizer step's rows; rank 0 saves ``job.output``.

    A share may be empty, but all ranks must have the same number of shares. Returns metrics, the same on all ranks.
    Raises ModelError for a model that cannot be used, DataError when no row has a token to learn, and DivergenceError
    when too many gradients are not finite.
    """
    start_rank(rank, job.trainer)
    torch.manual_seed(job.seed)
    tokenizer = load_tokenizer(job.tokenizer or job.base_model)
    model = load_policy(job.base_model, job.trainer.dtype, partition_config(job.trainer))
    engine = DeepSpeedModel.supervised(model, job.trainer, rank, job.optimization)
    fit = SupervisedFit(job, rank, engine)
    for rows in batches:
        fit.learn(rows, report)
    if not fit.losses and engine.skipped.num:
        raise diverged(f"{job.dataset}: no optimizer step had a finite gradient")
    if not fit.losses:
        raise DataError(f"{job.dataset}: no row has an answer within max_length={job.max_length} tokens")
    end_with_eos(model.language_model, tokenizer)
    save_model(model.language_model, tokenizer, job.output, rank)
    engine.close()
    return fit.result()


class SupervisedFit:
    """The state of one fit: its losses and counts so far."""

    def __init__(self, job: SFTJob, rank: Rank, engine: DeepSpeedModel) -> None:
        self._job, self._rank, self._engine = job, rank, engine
        self.losses: list[float] = []  #: of the steps that were not skipped
        self._totals = {"rows": 0.0, "tokens": 0.0, "target_tokens": 0.0, "rows_left_out": 0.0}

    def learn(self, rows: list[TrainingRow], report: Report) -> None:
        """One optimizer step, unless no rank has a token to learn."""
        kept, counts = learnable_rows(rows, self._job.max_length)
        plan = micro_batches([len(row["input_ids"]) for row in kept], self._job.trainer.micro_batch_tokens)
        totals = sum_over_ranks(counts, self._rank, self._engine.device)
        for name, value in totals.items():
            self._totals[name] += value
        if not totals["target_tokens"]:
            return
        batches = [[kept[index] for index in batch] for batch in plan]
        sums = self._engine.step(batches, lambda batch: self._loss(batch, totals["target_tokens"]))
        if not sums["skipped"]:
            self.losses.append(sums["loss"])
        report({"supervise/loss/step": sums["loss"], "supervise/grad/norm": self._engine.grad_norm()})

    def _loss(self, rows: list[TrainingRow], num_tokens: float) -> tuple[Tensor, Metrics]:
        logprobs, _ = self._engine(*targets(rows, self._engine.device))
        return supervised_loss(logprobs, num_tokens), {}

    def result(self) -> dict[str, float]:
        """First and final loss, and what was seen; rows in = rows learned + rows left out."""
        counts = {f"supervise/data/num_{name}": value for name, value in self._totals.items()}
        return {
            "supervise/loss/first": self.losses[0],
            "supervise/loss/final": self.losses[-1],
            "supervise/optimization/num_steps": float(len(self.losses)),
            "supervise/optimization/num_skipped_steps": float(self._engine.skipped.num),
            **counts,
        }


def learnable_rows(rows: list[TrainingRow], max_length: int) -> tuple[list[TrainingRow], dict[str, float]]:
    """Rows of at most ``max_length`` tokens with something to learn, and counts of what is there and left out."""
    kept: list[TrainingRow] = []
    for row in rows:
        # the very first token has nothing before it to be predicted from
        start = max(1, row["prompt_length"])
        if start < len(row["input_ids"]) <= max_length:
            kept.append({"input_ids": row["input_ids"], "prompt_length": start})
    counts = {
        "rows": float(len(rows)),
        "tokens": float(sum(len(row["input_ids"]) for row in kept)),
        "target_tokens": float(sum(len(row["input_ids"]) - row["prompt_length"] for row in kept)),
        "rows_left_out": float(len(rows) - len(kept)),
    }
    return kept, counts


def targets(rows: list[TrainingRow], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Padded ids [B, T], the flat positions [N] before each target, and the targets [N]."""
    ids = pad_right([row["input_ids"] for row in rows], pad_id=0)
    ends = [len(row["input_ids"]) for row in rows]
    following = spans([row["prompt_length"] for row in rows], ends, ids.shape[1])
    chosen = torch.from_numpy(ids.reshape(-1)[following])
    positions = torch.from_numpy(following - 1)
    return torch.from_numpy(ids).to(device), positions.to(device), chosen.to(device)
