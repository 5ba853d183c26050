"""Trainers without weights that check what they are given, wait, and answer by hash: for plans, drills and tests.

They keep the contracts of the real ones. What they have learned is a digest of every row in the order in which it
came, so two runs that end with the same digest learned the same rows in the same order. A row takes
``trainer.scripted.row_s`` seconds, and a rank beats after each. The models that they "save" are their base's files, the
job's tokenizer and the digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rlaif.algorithms.experience import check_samples
from rlaif.config.trainer import Trainer
from rlaif.engines.checksums import as_tensor, bit_sum
from rlaif.interfaces import Learned, Probe, Refitted, WeightBucket, Weights, WeightsHeader
from rlaif.jobs import PPOJob, PreferenceJob, Rank, RefreshJob, RefreshRows, Report, SFTJob
from rlaif.records import ScoredSample
from rlaif.training.batches import TrainingRow, read_rows

DIGEST = "scripted_digest.json"


class Digest:
    """What was learned so far: a version and a hash chain."""

    def __init__(self, checkpoint: str | None) -> None:
        self.version, self.value = 0, "0" * 64
        if checkpoint is not None:
            saved = json.loads((Path(checkpoint) / DIGEST).read_text())
            self.version, self.value = saved["version"], saved["value"]

    def add(self, *learned: object) -> None:
        self.version += 1
        self.value = hashlib.sha256(repr((self.value, learned)).encode()).hexdigest()

    def weights(self, token_ids: Sequence[int], value: float) -> Weights:
        """The digest in two tensors, a bucket each; its checksums are those of the real learner."""
        halves = np.frombuffer(bytes.fromhex(self.value), dtype=np.uint8).reshape(2, -1)
        tensors = {f"digest.{place}": half for place, half in enumerate(halves)}
        header = WeightsHeader(
            version=self.version,
            shapes={name: half.shape for name, half in tensors.items()},
            num_buckets=len(tensors),
            probe=Probe(token_ids=(tuple(token_ids),), values=((value,),)),
        )
        return Weights(header=header, buckets=[_bucket(name, half) for name, half in tensors.items()])

    def save(self, base: str, path: str | Path, tokenizer: str | None = None) -> None:
        for source in (base, tokenizer or base):
            shutil.copytree(source, path, dirs_exist_ok=True)
        (Path(path) / DIGEST).write_text(json.dumps({"version": self.version, "value": self.value}))


def _bucket(name: str, tensor: np.ndarray) -> WeightBucket:
    return WeightBucket(tensors={name: tensor}, checksums={name: bit_sum(as_tensor(tensor))})


class ScriptedPolicyLearner:
    """In place of ``ppo.PPOLearner``."""

    def __init__(self, job: PPOJob, rank: Rank) -> None:
        time.sleep(job.trainer.scripted.load_s)
        self._job, self._rank, self._digest = job, rank, Digest(job.checkpoint)

    def learn(self, samples: Sequence[ScoredSample]) -> Learned:
        check_samples(samples, self._job.settings.group_size)
        ages = [self._digest.version - sample.policy_version_start for sample in samples]
        _take_time(len(samples), self._job.trainer, self._rank)
        self._digest.add(*[(s.id, s.response_ids, s.logprobs, s.score, s.preference_model_version) for s in samples])
        figures: dict[str, float] = {
            "data/num_samples": len(samples),
            "gap/staleness_max": max(ages, default=0),
            "score/mean": float(np.mean([sample.score for sample in samples] or [0.0])),
        }
        return Learned(
            version=self._digest.version,
            metrics={f"reinforce/{name}": float(value) for name, value in figures.items()},
            kl=(0.0,) * len(samples),
            advantage_mean=(0.0,) * len(samples),
        )

    def weights(self) -> Weights:
        return self._digest.weights((0, 1), -1.0)

    def save(self, path: str | Path) -> None:
        if self._rank.index == 0:
            self._digest.save(self._job.policy, path)

    begin_checkpoint = save

    def finish_checkpoint(self) -> bool:
        """True: what it writes is small, and there at once."""
        return True

    def close(self) -> None: ...


class ScriptedPreferenceLearner:
    """In place of ``refresh.RefreshLearner``. Its models give every probe the same score."""

    def __init__(self, job: RefreshJob, rank: Rank) -> None:
        time.sleep(job.trainer.scripted.load_s)
        self._job, self._rank, self._digest = job, rank, Digest(job.checkpoint)
        self._probe = read_rows(job.probes)[0]["input_ids_1"]

    def learn(self, rows: RefreshRows) -> Refitted:
        fit, fresh = read_rows(rows.fit), read_rows(rows.fresh)
        _take_time(len(fit), self._job.trainer, self._rank)
        self._digest.add(*[(row["id"], row["prob"]) for row in fit])
        metrics = {f"{self._job.name}/fit/num_pairs": float(len(fit)), f"{self._job.name}/fresh/num_pairs": len(fresh)}
        return Refitted(version=self._digest.version, metrics=metrics, probe_mean_before=0.0, probe_mean_after=0.0)

    def weights(self) -> Weights:
        return self._digest.weights(self._probe, 0.0)

    def save(self, path: str | Path) -> None:
        if self._rank.index == 0:
            self._digest.save(self._job.model, path)

    begin_checkpoint = save

    def finish_checkpoint(self) -> bool:
        """True: what it writes is small, and there at once."""
        return True

    def close(self) -> None: ...


def scripted_sft(job: SFTJob, rank: Rank, batches: Iterable[list[TrainingRow]], report: Report) -> dict[str, float]:
    """Go through ``batches``, this rank's shares, and save the base; in place of ``sft.run_sft``."""
    digest = Digest(None)
    num_rows = _spend(batches, job.trainer, rank, report, "supervise", digest)
    if rank.index == 0:
        digest.save(job.base_model, job.output, job.tokenizer)
    return {"supervise/data/num_rows": float(num_rows * rank.world_size)}


def scripted_preference(
    job: PreferenceJob,
    rank: Rank,
    pretraining_batches: Iterable[list[TrainingRow]] | None,
    fit_batches: Iterable[list[TrainingRow]],
    _heldout_rows: object,
    report: Report,
) -> dict[str, float]:
    """As ``scripted_sft``; in place of ``preference.run_preference``."""
    digest = Digest(None)
    _spend(pretraining_batches or (), job.trainer, rank, report, f"{job.name}/pretraining", digest)
    if rank.index == 0:
        digest.save(job.base_model, job.unfitted, job.tokenizer)
    num_rows = _spend(fit_batches, job.trainer, rank, report, f"{job.name}/fit", digest)
    if rank.index == 0:
        digest.save(job.base_model, job.output, job.tokenizer)
    return {f"{job.name}/fit/num_pairs": float(num_rows * rank.world_size)}


def _take_time(num_rows: int, trainer: Trainer, rank: Rank) -> None:
    for _ in range(num_rows):
        time.sleep(trainer.scripted.row_s)
        rank.beat()


def _spend(
    batches: Iterable[list[TrainingRow]], trainer: Trainer, rank: Rank, report: Report, name: str, digest: Digest
) -> int:
    num_rows = 0
    for rows in batches:
        _take_time(len(rows), trainer, rank)
        digest.add(*(row["id"] for row in rows))
        num_rows += len(rows)
        report({f"{name}/data/num_rows": float(num_rows)})
    return num_rows
