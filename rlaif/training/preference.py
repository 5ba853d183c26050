"""Preference-model training: what one rank does. Pretraining (PMP), the fit on labelled pairs, the held-out report.

Legend: ``P`` pairs of a micro-batch; its 2P dialogues are padded together, first answers before second ones. Each
step's loss is divided by the summed weights of its pairs, over all ranks. Scores are read at the last token, the EOS.

Sources: arXiv 2204.05862, section 4; arXiv 2112.00861, section 4; soft targets, arXiv 2212.08073, section 4.1.

Departures from the papers:
1. Pretraining uses only the pairwise loss; no language-modelling loss is added.
2. A pair with a dialogue longer than ``max_length`` is left out and counted: cut anywhere, it would no longer be what
   its label judged, or lose the EOS where its score is read.
3. The optimizer starts afresh between pretraining and fit.

A pair whose two dialogues do not fit into one micro-batch is split. Its scores are computed once without a gradient,
and the slope of the loss at them is the factor of each score in a pass of its own: by the chain rule the same gradient,
for one more forward pass. (With dropout, the three passes draw it separately.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlaif.algorithms.losses import Metrics, preference_loss
from rlaif.algorithms.preference_model import ScoredPair, pair_reliability, pair_report
from rlaif.errors import DataError
from rlaif.jobs import PreferenceJob, Rank, RefreshJob, Report
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.statistics.calibration import bins_to_metrics
from rlaif.training.batches import TrainingRow, micro_batches
from rlaif.training.collectives import even_passes, sum_over_ranks, sum_tensor_over_ranks
from rlaif.training.deepspeed import DeepSpeedModel, start_rank
from rlaif.training.deepspeed_config import partition_config
from rlaif.training.divergence import diverged
from rlaif.training.models import load_scorer, new_scorer
from rlaif.training.pairs import PairSide, dialogues, labels, last_tokens, longest, side_loss, split
from rlaif.training.saving import save_model

SCORER_PREFIX = "classifier."  #: of the parameters, in the module that is trained


def run_preference(
    job: PreferenceJob,
    rank: Rank,
    pretraining_batches: Iterable[list[TrainingRow]] | None,
    fit_batches: Iterable[list[TrainingRow]],
    heldout_rows: Sequence[TrainingRow] | None,
    report: Report,
) -> dict[str, float]:
    """Pretrain if there are rows for it, fit, score the held-out rows; rank 0 saves the model before and after the fit.

    Batches are this rank's shares of each optimizer step's pairs (some may be empty; all ranks have the same number);
    every rank gets all of ``heldout_rows``. Returns metrics, the same on all ranks. Raises ModelError for a
    model that cannot be used, DataError when no pair fits into ``max_length``, and DivergenceError when too many
    gradients, or scores, are not finite.
    """
    start_rank(rank, job.trainer)
    torch.manual_seed(job.seed)
    tokenizer = load_tokenizer(job.tokenizer or job.base_model)
    model = new_scorer(job.base_model, job.trainer.dtype, tokenizer, job.seed, partition_config(job.trainer))
    metrics: dict[str, float] = {}
    if pretraining_batches is not None:
        phase = PairFit(
            "pretraining", job, rank, DeepSpeedModel.supervised(model, job.trainer, rank, job.settings.pretraining)
        )
        metrics |= phase.run(pretraining_batches, report)
        save_model(model.classifier, tokenizer, job.unfitted, rank)
        phase.engine.close()
        model = load_scorer(job.unfitted, job.trainer.dtype, partition_config(job.trainer))
    else:
        save_model(model.classifier, tokenizer, job.unfitted, rank)
    phase = PairFit("fit", job, rank, DeepSpeedModel.supervised(model, job.trainer, rank, job.settings.fit))
    metrics |= phase.run(fit_batches, report)
    if heldout_rows:
        metrics |= heldout_report(job.name, phase, heldout_rows, metrics[f"{job.name}/fit/accuracy"])
    save_model(model.classifier, tokenizer, job.output, rank)
    phase.engine.close()
    return metrics


def heldout_report(name: str, phase: PairFit, rows: Sequence[TrainingRow], fit_accuracy: float) -> dict[str, float]:
    """How the model does on pairs whose prompts it was not fitted on; empty when none of ``rows`` fits."""
    pairs = phase.score(rows)
    if not pairs:
        return {}
    metrics = {f"{name}/heldout/{figure}": value for figure, value in pair_report(pairs).items()}
    if f"{name}/heldout/accuracy" in metrics:
        metrics[f"{name}/gap/accuracy"] = fit_accuracy - metrics[f"{name}/heldout/accuracy"]
    metrics |= bins_to_metrics(pair_reliability(pairs), f"{name}/reliability")
    return {**metrics, f"{name}/heldout/num_pairs": float(len(pairs))}


class PairFit:
    """One pass of pairwise training (pretraining or fit) and its counts so far."""

    def __init__(self, name: str, job: PreferenceJob | RefreshJob, rank: Rank, engine: DeepSpeedModel) -> None:
        self._name, self._job, self._rank = name, job, rank
        self.engine = engine
        self._losses: list[float] = []
        self._totals = {"pairs": 0.0, "pairs_left_out": 0.0, "tokens": 0.0, "agreed": 0.0, "decided": 0.0}

    def run(self, batches: Iterable[list[TrainingRow]], report: Report) -> dict[str, float]:
        """One optimizer step for each batch; the metrics of the pass."""
        for rows in batches:
            self._learn(rows, report)
        if not self._losses and self.engine.skipped.num:
            raise diverged(f"{self._name}: no optimizer step had a finite gradient")
        if not self._losses:
            raise DataError(f"{self._name}: no pair fits into max_length={self._job.settings.max_length} tokens")
        totals = self._totals
        figures = {
            "first_loss": self._losses[0],
            "final_loss": self._losses[-1],
            "num_steps": float(len(self._losses)),
            "num_skipped_steps": float(self.engine.skipped.num),
            "num_pairs": totals["pairs"],
            "num_pairs_left_out": totals["pairs_left_out"],
            "num_tokens": totals["tokens"],
            "accuracy": totals["agreed"] / max(1.0, totals["decided"]),
        }
        return {f"{self._job.name}/{self._name}/{key}": value for key, value in figures.items()}

    def _learn(self, rows: list[TrainingRow], report: Report) -> None:
        kept = [row for row in rows if longest(row) <= self._job.settings.max_length]
        counts = {
            "pairs": float(len(rows)),
            "pairs_left_out": float(len(rows) - len(kept)),
            "tokens": float(sum(len(row["input_ids_1"]) + len(row["input_ids_2"]) for row in kept)),
            "weight": float(sum(row["weight"] for row in kept)),
        }
        counts = sum_over_ranks(counts, self._rank, self.engine.device)
        if counts["weight"] > 0:
            sums = self.engine.step(self._plan(kept, counts["weight"]), lambda rows: self._loss(rows, counts["weight"]))
            report({f"{self._job.name}/{self._name}/loss": sums["loss"]})
            if not sums["skipped"]:
                self._losses.append(sums["loss"])
                counts |= {"agreed": sums["num_agreed"], "decided": sums["num_decided"]}
        for name in self._totals:
            self._totals[name] += counts.get(name, 0.0)

    def _loss(self, rows: list[Any], total_weight: float) -> tuple[Tensor, Metrics]:
        """Of a micro-batch of pairs, or of sides."""
        if rows and isinstance(rows[0], PairSide):
            scores = self.engine(*last_tokens([side.input_ids for side in rows], self.engine.device))
            return side_loss(rows, scores)
        first, second = self.engine(*last_tokens(dialogues(rows), self.engine.device)).chunk(2)
        return preference_loss(first, second, *labels(rows, first.device), total_weight)

    def _plan(self, rows: Sequence[TrainingRow], total_weight: float) -> list[list[Any]]:
        """Micro-batches of pairs, and of the sides of pairs that are too long for one; all ranks must call it."""
        max_tokens = self._job.trainer.micro_batch_tokens
        whole = [row for row in rows if 2 * longest(row) <= max_tokens]
        plan = [[whole[i] for i in batch] for batch in micro_batches([2 * longest(row) for row in whole], max_tokens)]
        sides = self._sides([row for row in rows if 2 * longest(row) > max_tokens], total_weight)
        cut = micro_batches([len(side.input_ids) for side in sides], max_tokens)
        return [*plan, *([sides[i] for i in batch] for batch in cut)]

    def _sides(self, rows: Sequence[TrainingRow], total_weight: float) -> list[PairSide]:
        with torch.no_grad():
            scores = self._scores(dialogues(rows))
        return split(rows, scores, total_weight)

    def _scores(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Scores [N] of this rank's dialogues, without a gradient; all ranks must call it."""
        scores = torch.zeros(len(sequences), device=self.engine.device)
        plan = micro_batches([len(sequence) for sequence in sequences], self._job.trainer.micro_batch_tokens)
        for chosen in even_passes(plan, self._rank, self.engine.device):
            inputs = last_tokens([sequences[index] for index in chosen], self.engine.device)
            scores[chosen] = self.engine(*inputs)[: len(chosen)]
        return scores

    def score(self, rows: Sequence[TrainingRow]) -> list[ScoredPair]:
        """Score pairs with the model as it is, shared among the ranks; those that are too long are left out.

        Raises DivergenceError for scores that are not finite: no report and no served model may hold them.
        """
        kept = [row for row in rows if longest(row) <= self._job.settings.max_length]
        scores = torch.zeros(2, len(kept), dtype=torch.float64, device=self.engine.device)
        self.engine.module.eval()
        with torch.no_grad():  # not inference_mode: ZeRO-3 keeps parameters that it gathered in it
            self._score_share(kept, scores)
        self.engine.module.train()
        both = sum_tensor_over_ranks(scores, self._rank)
        if not both.isfinite().all():
            raise diverged(f"{self._name}: the preference model's scores are not finite")
        totals = both.T.tolist()
        return [_scored_pair(row, *pair) for row, pair in zip(kept, totals, strict=True)]

    def _score_share(self, pairs: Sequence[TrainingRow], scores: Tensor) -> None:
        """Write the scores of this rank's share of ``pairs`` to their columns of ``scores`` [2, P]."""
        mine = slice(self._rank.index, None, self._rank.world_size)
        scores[:, mine] = self._scores(dialogues(pairs[mine])).double().view(2, -1)


def _scored_pair(row: TrainingRow, score_1: float, score_2: float) -> ScoredPair:
    return ScoredPair(
        axis=row["axis"],
        prob=row["prob"],
        score_1=score_1,
        score_2=score_2,
        length_1=len(row["input_ids_1"]),
        length_2=len(row["input_ids_2"]),
    )
