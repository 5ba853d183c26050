"""Refreshing the preference model while the policy is trained: what one rank of the resident trainer does.

The paper names labelling that follows the policy as future work (arXiv 2212.08073, section 6.1) and gives no recipe.
Here a refresh repeats the first fit, from the same pretrained weights with a new optimizer, over the earlier pairs and
the fresh ones: its result depends only on the labels, not on earlier refreshes. Loss and report are those of
``preference``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from rlaif.algorithms.preference_model import pair_report
from rlaif.errors import ModelError
from rlaif.interfaces import Probe, Refitted, Weights
from rlaif.jobs import Rank, RefreshJob, RefreshRows
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.training.batches import TrainingRow, local_batches, read_rows
from rlaif.training.collectives import wait_for_all
from rlaif.training.deepspeed import DeepSpeedModel, start_rank
from rlaif.training.deepspeed_config import partition_config
from rlaif.training.models import load_scorer
from rlaif.training.preference import SCORER_PREFIX, PairFit, heldout_report
from rlaif.training.saving import save_model
from rlaif.training.weight_buckets import gather_weights

NUM_WEIGHT_PROBES = 16  #: pairs whose scores engines must reproduce with new weights (``engines.proof``)
VERSION_FILE = "version.json"


class RefreshLearner:
    """One rank of the resident preference trainer: it holds the model that is served, and each refresh replaces it.
    Every rank must make the same calls in the same order."""

    def __init__(self, job: RefreshJob, rank: Rank) -> None:
        """Load the model. Raises ModelError, and DataError when there are no probes."""
        start_rank(rank, job.trainer)
        self._job, self._rank = job, rank
        self._tokenizer = load_tokenizer(job.model)
        self._version = 0 if job.checkpoint is None else _version(Path(job.checkpoint))
        self._probes = read_rows(job.probes)
        self._open(job.checkpoint or job.model)

    def _open(self, path: str) -> None:
        """The model at ``path``, with an optimizer that has seen nothing."""
        torch.manual_seed(self._job.seed)  # so that a refresh after a resume is the same
        model = load_scorer(path, self._job.trainer.dtype, partition_config(self._job.trainer))
        self._engine = DeepSpeedModel.supervised(model, self._job.trainer, self._rank, self._job.settings.fit)

    def learn(self, rows: RefreshRows) -> Refitted:
        """One refresh; the same result on every rank. Raises DataError when no pair fits into ``max_length``."""
        settings = self._job.settings.fit
        before, metrics = self._probe_mean(), self._fresh_metrics(read_rows(rows.fresh))
        self._engine.close()
        self._open(self._job.unfitted)
        phase = self._phase()
        batches = local_batches(rows.fit, settings.batch_size, settings.epochs, self._job.seed)
        shares = (batch[self._rank.index :: self._rank.world_size] for batch in batches)
        metrics |= phase.run(shares, lambda _: None)
        if rows.heldout is not None:
            fit_accuracy = metrics[f"{self._job.name}/fit/accuracy"]
            metrics |= heldout_report(self._job.name, phase, read_rows(rows.heldout), fit_accuracy)
        self._version += 1
        return Refitted(
            version=self._version,
            metrics=metrics,
            probe_mean_before=before,
            probe_mean_after=self._probe_mean(),
        )

    def _phase(self) -> PairFit:
        return PairFit("fit", self._job, self._rank, self._engine)

    def _fresh_metrics(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """How well the model agrees with the labels of the fresh pairs, which it has not seen."""
        report = pair_report(self._phase().score(rows))
        return {f"{self._job.name}/fresh/{figure}": value for figure, value in report.items()}

    def _probe_mean(self) -> float:
        pairs = self._phase().score(self._probes)
        return float(np.mean([score for pair in pairs for score in (pair.score_1, pair.score_2)])) if pairs else 0.0

    def weights(self) -> Weights:
        """The current model and a probe of it, as ``gather_weights``; every rank must call it."""
        most = self._job.settings.max_length  # longer ones have no score
        rows = [row for row in self._probes if max(map(len, (row["input_ids_1"], row["input_ids_2"]))) <= most]
        rows = rows[:NUM_WEIGHT_PROBES]
        scored = [(pair.score_1, pair.score_2) for pair in self._phase().score(rows)]
        probe = Probe(
            token_ids=tuple(tuple(row[ids]) for row in rows for ids in ("input_ids_1", "input_ids_2")),
            values=tuple((score,) for pair in scored for score in pair),
        )
        return gather_weights(self._engine.module, SCORER_PREFIX, self._rank, self._version, probe)

    def save(self, path: str | Path) -> None:
        """Save in Hugging Face layout; returns on every rank when the files are there."""
        save_model(self._engine.module.classifier, self._tokenizer, str(path), self._rank)

    def begin_checkpoint(self, path: str | Path) -> None:
        """The model as ``save`` leaves it, and its version: the next refresh needs nothing else of it. It is written at
        once, because no refresh waits for its ranks meanwhile."""
        self.save(path)
        if self._rank.index == 0:  # last, so that a checkpoint with this file is whole
            (Path(path) / VERSION_FILE).write_text(json.dumps(self._version))
        wait_for_all(self._rank)

    def finish_checkpoint(self) -> bool:
        """True: it is there."""
        return True

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()


def _version(checkpoint: Path) -> int:
    try:
        return int(json.loads((checkpoint / VERSION_FILE).read_text()))
    except OSError as error:
        raise ModelError(f"{checkpoint}: is not a whole preference checkpoint: {error}") from error
