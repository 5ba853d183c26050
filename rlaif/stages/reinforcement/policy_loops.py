"""The four loops that train the policy. The diagram and the table of all loops stand in ``reinforce``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlaif.interfaces import Learned, PolicyLearner, Pool, Task
from rlaif.records import Rollout, RolloutSample, ScoredSample, Status
from rlaif.stages.reinforcement.admission import Admission
from rlaif.stages.reinforcement.checkpoints import Checkpoints, PreferenceCheckpoints
from rlaif.stages.reinforcement.lag import Refreshed, version_for
from rlaif.stages.reinforcement.rows import Watched, in_order
from rlaif.stages.reinforcement.schedule import Schedule, group_of
from rlaif.stages.reinforcement.waits import Waits
from rlaif.stages.run import Run, failed
from rlaif.tasks.sampling import RollOut

STAGE = "rollouts"


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """What the learner gets: samples and their scores, in the order of the schedule; and the samples that it does not
    get because another one of their group failed."""

    samples: Sequence[RolloutSample]
    scored: Sequence[ScoredSample]
    left_out: Sequence[RolloutSample]


@dataclass(frozen=True, kw_only=True)
class PolicyLoops:
    """Rollouts, scoring, learning, publishing. Everything between them passes through a queue of one."""

    run: Run
    generator: Pool
    scorer: Pool
    score_task: Task
    learner: PolicyLearner
    schedule: Schedule
    checkpoints: Checkpoints
    preference_checkpoints: PreferenceCheckpoints
    admission: Admission
    waits: Waits
    first: int  #: batches that were learned before
    served: Refreshed  #: the preference model at the first batch
    refreshed: asyncio.Queue[Refreshed]
    sampled: asyncio.Queue[asyncio.Task[list[RolloutSample]]] = field(default_factory=lambda: asyncio.Queue(1))
    scored: asyncio.Queue[ScoredBatch] = field(default_factory=lambda: asyncio.Queue(1))
    published: asyncio.Queue[Any] = field(default_factory=lambda: asyncio.Queue(1))

    @property
    def batches(self) -> range:
        return range(self.first, self.run.config.reinforcement.batches)

    async def roll_out(self) -> None:
        """Sample the schedule's batches, each as soon as it is admitted and the one before has left the queue."""
        task = RollOut(dialogue_format=self.run.config.dialogue_format, sampling=self.run.config.sampling)
        async with asyncio.TaskGroup() as sampling:
            for number in self.batches:
                await self.waits("roll_out", f"admission of batch {number}", self.admission.admits(number))
                rows = Watched(self.schedule.batch(number))
                samples = sampling.create_task(in_order(self.run, batch_stage(number), self.generator, task, rows))
                await self.waits("roll_out", f"batch {number - 1} to be scored", self.sampled.put(samples))
                await self.waits("roll_out", f"an engine for the rest of batch {number}", rows.taken.wait())

    async def score(self) -> None:
        """Score the batches in their order, each by one version of the preference model."""
        served = self.served
        for number in self.batches:
            sampling = await self.waits("score", f"batch {number} to start", self.sampled.get())
            samples = await self.waits("score", f"samples of batch {number}", sampling)
            served = await self._swapped(served, number)
            scores = await in_order(self.run, batch_stage(number), self.scorer, self.score_task, Watched(samples))
            centred = [replace(score, score=score.score - served.offset) for score in scores]
            batch = scored_batch(samples, centred, self.run.config.reinforcement.group_size)
            for sample in batch.left_out:
                self.run.quarantine(failed(batch_stage(number), sample, "another sample of its group failed"))
            await self.waits("score", f"batch {number - 1} to be learned", self.scored.put(batch))

    async def _swapped(self, served: Refreshed, number: int) -> Refreshed:
        """Serve the version that scores batch ``number``. No batch is being scored meanwhile, so none sees two."""
        wanted = version_for(self.run.config.preference_model.refresh, number)
        while served.version < wanted:
            served = await self.waits("score", f"preference model {served.version + 1}", self.refreshed.get())
            await self.scorer.update_weights(served.weights)
            self.run.run_dir.events.write("preference_model_swapped", version=served.version, batch=number)
        return served

    async def learn(self) -> None:
        """Learn the scored batches in their order, record what became of them, checkpoint."""
        journal, metrics = self.run.run_dir.journal, self.run.run_dir.metrics
        for number in self.batches:
            batch = await self.waits("learn", f"scored batch {number}", self.scored.get())
            learned = await self.learner.learn(batch.scored)
            await self.waits("learn", "older weights to be served", self.published.put(await self.learner.weights()))
            journal.add_all(batch_stage(number), records(batch, learned))
            metrics.write("reinforce", learned.metrics, step=learned.version)
            if self.checkpoints.is_due(learned.version, self.run.config.reinforcement.checkpoint_every):
                await self._checkpoint(learned)

    async def _checkpoint(self, learned: Learned) -> None:
        score = learned.metrics.get("reinforce/score/mean", -math.inf)  # an empty batch has none
        await self.checkpoints.write(learned.version, self.learner.save_checkpoint, score)
        needed = version_for(self.run.config.preference_model.refresh, learned.version)
        self.preference_checkpoints.forget_before(needed)

    async def publish(self) -> None:
        """Let the generators serve each new version, verified, and admit what waited for it."""
        for number in self.batches:
            weights = await self.waits("publish", f"weights after batch {number}", self.published.get())
            await self.generator.update_weights(weights)
            await self.admission.advance(weights.version)
            self.run.progress.advance("reinforce")


def scored_batch(samples: Sequence[RolloutSample], scores: Sequence[ScoredSample], group_size: int) -> ScoredBatch:
    """Samples that have a score, in whole groups: a baseline over a group with a gap would be another baseline."""
    by_id = {score.id: score for score in scores}
    groups: dict[str, list[RolloutSample]] = {}
    for sample in samples:
        groups.setdefault(group_of(sample.id), []).append(sample)
    whole = [g for g in groups.values() if len(g) == group_size and all(s.id in by_id for s in g)]
    kept = [sample for group in whole for sample in group]
    taken = {sample.id for sample in kept}
    left_out = [sample for sample in samples if sample.id in by_id and sample.id not in taken]
    return ScoredBatch(samples=kept, scored=[by_id[sample.id] for sample in kept], left_out=left_out)


def records(batch: ScoredBatch, learned: Learned) -> list[Rollout]:
    return [
        Rollout(
            id=sample.id,
            source_file=sample.source_file,
            source_row=sample.source_row,
            status=Status.OK,
            error=None,
            seconds=sample.seconds,
            seed=sample.seed,
            model_version=sample.model_version,
            axis=sample.axis,
            prompt_ids=sample.prompt_ids,
            response_ids=sample.completion.token_ids,
            logprobs=sample.completion.logprobs,
            finish_reason=sample.completion.finish_reason,
            policy_version_start=sample.completion.policy_version_start,
            policy_version_end=sample.completion.policy_version_end,
            preference_model_version=scored.preference_model_version,
            score=scored.score,
            kl=kl,
            advantage_mean=advantage,
        )
        for sample, scored, kl, advantage in zip(
            batch.samples, batch.scored, learned.kl, learned.advantage_mean, strict=True
        )
    ]


def batch_stage(batch: int) -> str:
    """Where a batch's rollouts are journalled or quarantined, so that batches after a checkpoint can be forgotten."""
    return f"{STAGE}/{batch:08d}"
