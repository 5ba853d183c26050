"""Refreshing the preference model while the policy is trained: what one rank of the resident trainer does.

The paper names labelling that follows the policy as future work (arXiv 2212.08073, section 6.1) and gives no recipe.
Here a refresh goes on from the model that is served, over labels of the current policy's answers and, so that it does
not forget, a share of the first fit's pairs. The loss and the report are those of ``preference``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlaif.errors import ModelError
from rlaif.interfaces import Probe, Refitted, Weights
from rlaif.preference_model import pair_report
from rlaif.training.batches import Row, local_batches, read_rows
from rlaif.training.deepspeed import Engine, start_rank, wait_for_all
from rlaif.training.jobs import Rank, RefreshJob, RefreshRows
from rlaif.training.models import as_numpy, load_scorer, load_tokenizer
from rlaif.training.preference import PairFit, save_scorer, scorer_state

NUM_WEIGHT_PROBES = 4  #: dialogues that engines prove new weights on


class PreferenceLearner:
    """One rank of the resident preference trainer: the served model, fitted again refresh after refresh by one
    optimizer. Every rank must make the same calls in the same order."""

    def __init__(self, job: RefreshJob, rank: Rank) -> None:
        """Load the model. Raises ModelError, and DataError when there are no probes."""
        start_rank(rank, job.trainer)
        self._job, self._rank = job, rank
        self._tokenizer = load_tokenizer(job.model)
        self._version = 0
        self._model = load_scorer(job.model, job.trainer.dtype)
        self._engine = Engine.supervised(self._model, job.trainer, rank, job.settings.refresh.optimization)
        self._probes = read_rows(job.probes)
        if job.checkpoint is not None:
            self._load_checkpoint(Path(job.checkpoint))

    def learn(self, rows: RefreshRows) -> Refitted:
        """One refresh; the same result on every rank. Raises DataError when no pair fits into ``max_length``."""
        settings = self._job.settings.refresh.optimization
        before, metrics = self._probe_mean(), self._fresh_metrics(read_rows(rows.fresh))
        phase = self._phase()
        batches = local_batches(rows.fit, settings.batch_size, settings.epochs, self._job.seed)
        shares = (batch[self._rank.index :: self._rank.world_size] for batch in batches)
        metrics |= phase.run(shares, lambda _: None)
        self._version += 1
        return Refitted(
            version=self._version,
            metrics=metrics,
            probe_mean_before=before,
            probe_mean_after=self._probe_mean(),
        )

    def _phase(self) -> PairFit:
        return PairFit("fit", self._job, self._rank, self._engine)

    def _fresh_metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """How well the model that has not seen the fresh pairs agrees with their labels."""
        found = pair_report(self._phase().score(rows))
        return {f"{self._job.name}/fresh/{figure}": value for figure, value in found.items()}

    def _probe_mean(self) -> float:
        pairs = self._phase().score(self._probes)
        return float(np.mean([score for pair in pairs for score in (pair.score_1, pair.score_2)])) if pairs else 0.0

    def weights(self) -> Weights:
        """The current model and a probe of it; every rank must call it, the tensors are on rank 0 alone."""
        tensors = {name: as_numpy(tensor) for name, tensor in scorer_state(self._engine).items()}
        pairs = self._probes[:NUM_WEIGHT_PROBES]
        values = [pair.score_1 for pair in self._phase().score(pairs)]
        probe = Probe(token_ids=tuple(tuple(row["input_ids_1"]) for row in pairs), values=tuple(values))
        return Weights(version=self._version, tensors=tensors, probe=probe)

    def save(self, path: str | Path) -> None:
        """Save in Hugging Face layout; returns on every rank when the files are there."""
        save_scorer(self._engine, self._model, self._tokenizer, str(path), self._rank)

    def save_checkpoint(self, path: str | Path) -> None:
        """The model as ``save`` leaves it, and beside it what it takes to go on."""
        path = Path(path)
        self.save(path)
        self._engine.save_checkpoint(str(path / "engine"))
        wait_for_all(self._rank)
        if self._rank.index == 0:  # last, so that a checkpoint with this file is whole
            (path / "version.json").write_text(json.dumps(self._version))
        wait_for_all(self._rank)

    def _load_checkpoint(self, path: Path) -> None:
        try:
            self._version = json.loads((path / "version.json").read_text())
        except OSError as error:
            raise ModelError(f"{path}: is not a whole preference checkpoint: {error}") from error
        self._engine.load_checkpoint(str(path / "engine"))
