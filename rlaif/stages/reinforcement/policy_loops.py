"""The five loops that train the policy. The package's docstring has the diagram and the table of all loops."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rlaif.evaluation.refusals.watch import refusal_metrics
from rlaif.ids import group_id_of
from rlaif.interfaces import Failure, Learned, PolicyLearner, Pool, Task, VersionedWeights
from rlaif.records import Rollout, RolloutSample, ScoredSample
from rlaif.stages.bookkeeping import check_loss, quarantine_entry
from rlaif.stages.reinforcement.checkpoints import Checkpoints
from rlaif.stages.reinforcement.context import LoopContext
from rlaif.stages.reinforcement.feed import Feed, run_in_order
from rlaif.stages.reinforcement.preference_versions import PreferenceVersion, version_for
from rlaif.tasks.sampling import RollOut

ROLLOUTS = "rollouts"


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """What the learner gets: samples and their scores, in the order of the schedule; and the samples that it does not
    get because another one of their group failed."""

    samples: Sequence[RolloutSample]
    scored: Sequence[ScoredSample]
    left_out: Sequence[RolloutSample]


@dataclass(frozen=True, kw_only=True)
class PolicyLoops:
    """Rollouts, scoring, learning, publishing, writing checkpoints. Everything between them passes through a queue of
    one."""

    context: LoopContext
    scorer: Pool
    score_task: Task[RolloutSample, ScoredSample]
    learner: PolicyLearner
    checkpoints: Checkpoints
    first: int  #: batches that were learned before
    served: PreferenceVersion  #: at the first batch
    sampled: asyncio.Queue[asyncio.Task[list[RolloutSample]]] = field(default_factory=lambda: asyncio.Queue(1))
    scored: asyncio.Queue[ScoredBatch] = field(default_factory=lambda: asyncio.Queue(1))
    published: asyncio.Queue[VersionedWeights] = field(default_factory=lambda: asyncio.Queue(1))
    begun: asyncio.Queue[Learned] = field(default_factory=lambda: asyncio.Queue(1))  #: with a checkpoint

    @property
    def batches(self) -> range:
        return range(self.first, self.context.run.config.reinforcement.batches)

    async def roll_out(self) -> None:
        """Sample the schedule's batches, each as soon as it is admitted and the one before has left the queue."""
        run, waits = self.context.run, self.context.waits
        task = RollOut(dialogue_format=run.format("policy"), sampling=run.config.sampling)
        async with asyncio.TaskGroup() as sampling:
            for batch in self.batches:
                await waits("roll_out", f"admission of batch {batch}", self.context.admission.wait_for_turn(batch))
                feed = Feed(self.context.schedule.batch(batch))
                samples = sampling.create_task(run_in_order(run, ROLLOUTS, batch, self.context.generator, task, feed))
                await waits("roll_out", f"batch {batch - 1} to be scored", self.sampled.put(samples))
                await waits("roll_out", f"an engine for the rest of batch {batch}", feed.taken.wait())

    async def score(self) -> None:
        """Score the batches in their order, each by one version of the preference model."""
        run, waits, served = self.context.run, self.context.waits, self.served
        for batch in self.batches:
            sampling = await waits("score", f"batch {batch} to start", self.sampled.get())
            samples = await waits("score", f"samples of batch {batch}", sampling)
            served = await self._serve_version_for(batch, served)
            scores = await run_in_order(run, ROLLOUTS, batch, self.scorer, self.score_task, Feed(samples))
            centred = [replace(score, score=score.score - served.offset) for score in scores]
            scored = scored_batch(samples, centred, run.config.reinforcement.group_size)
            for sample in scored.left_out:
                failure = Failure(cause="another sample of its group failed", fault="outside")
                run.quarantine(quarantine_entry(ROLLOUTS, sample, failure, batch))
            await waits("score", f"batch {batch - 1} to be learned", self.scored.put(scored))

    async def _serve_version_for(self, batch: int, served: PreferenceVersion) -> PreferenceVersion:
        """Serve the version that scores ``batch``. No batch is being scored meanwhile, so none sees two."""
        run = self.context.run
        wanted = version_for(run.config.preference_model.refresh, batch)
        while served.version < wanted:
            what = f"preference model {served.version + 1}"
            served = await self.context.waits("score", what, self.context.refreshed.get())
            assert served.weights is not None  # only version 0 has none: the scorers were opened with it
            await self.scorer.update_weights(served.weights)
            run.run_dir.events.write("preference_model_swapped", version=served.version, batch=batch)
        return served

    async def learn(self) -> None:
        """Learn the scored batches in their order, record what became of them, begin checkpoints."""
        run, waits = self.context.run, self.context.waits
        for batch in self.batches:
            scored = await waits("learn", f"scored batch {batch}", self.scored.get())
            learned = await self.learner.learn(scored.scored)
            await waits("learn", "older weights to be served", self.published.put(await self.learner.weights()))
            run.run_dir.journal.add_all(ROLLOUTS, rollouts(scored, learned), batch)
            self._set_aside(scored, learned, batch)
            self._check_loss(batch)
            refusals = await asyncio.to_thread(refusal_metrics, scored.samples)
            run.run_dir.metrics.write("reinforce", {**learned.metrics, **refusals}, index=learned.version)
            if self.checkpoints.is_due(learned.version, run.config.reinforcement.checkpoint_every):
                await waits("learn", "the last checkpoint to be written", self.begun.join())
                run.run_dir.settle()
                await self.checkpoints.begin(learned.version, self.learner)
                await self.begun.put(learned)

    def _set_aside(self, scored: ScoredBatch, learned: Learned, batch: int) -> None:
        """Quarantine what the learner left out."""
        failure = Failure(cause="the learner computes NaN or infinity for it or for its group", fault="outside")
        for sample in scored.samples:
            if sample.id in learned.left_out:
                self.context.run.quarantine(quarantine_entry(ROLLOUTS, sample, failure, batch))

    def _check_loss(self, batch: int) -> None:
        """Raises LossError when too many of the rollouts so far are quarantined."""
        run_dir, config = self.context.run.run_dir, self.context.run.config
        num, lost = (batch + 1) * config.reinforcement.batch_size, run_dir.journal.num_quarantined(ROLLOUTS)
        check_loss(run_dir, ROLLOUTS, rows_in=num, rows_out=num - lost, max_loss=config.max_loss)

    async def write(self) -> None:
        """Finish each checkpoint that is begun, while learning goes on."""
        config = self.context.run.config
        every = config.reinforcement.checkpoint_every
        for _ in range(sum(self.checkpoints.is_due(batch + 1, every) for batch in self.batches)):
            learned = await self.begun.get()  # which may take longer than one loop may wait for another
            score = learned.metrics.get("reinforce/score/mean", -math.inf)  # an empty batch has none
            finishing = self.checkpoints.finish(learned.version, self.learner, score)
            await self.context.waits("write", f"checkpoint {learned.version}", finishing)
            needed = version_for(config.preference_model.refresh, learned.version)
            self.context.preference_checkpoints.forget_before(needed)
            self.begun.task_done()

    async def publish(self) -> None:
        """Let the generators serve each new version, verified, and admit the batches that waited for it."""
        for batch in self.batches:
            weights = await self.context.waits("publish", f"weights after batch {batch}", self.published.get())
            await self.context.generator.update_weights(weights)
            await self.context.admission.advance(weights.version)
            self.context.run.progress.advance("reinforce")


def scored_batch(samples: Sequence[RolloutSample], scores: Sequence[ScoredSample], group_size: int) -> ScoredBatch:
    """Samples that have a score, in whole groups: a baseline over an incomplete group would be a different one."""
    by_id = {score.id: score for score in scores}
    groups: dict[str, list[RolloutSample]] = {}
    for sample in samples:
        groups.setdefault(group_id_of(sample.id), []).append(sample)
    whole = [g for g in groups.values() if len(g) == group_size and all(s.id in by_id for s in g)]
    kept = [sample for group in whole for sample in group]
    taken = {sample.id for sample in kept}
    left_out = [sample for sample in samples if sample.id in by_id and sample.id not in taken]
    return ScoredBatch(samples=kept, scored=[by_id[sample.id] for sample in kept], left_out=left_out)


def rollouts(batch: ScoredBatch, learned: Learned) -> list[Rollout]:
    """The records of what was learned of a batch."""
    pairs = zip(batch.samples, batch.scored, strict=True)
    kept = [pair for pair in pairs if pair[0].id not in learned.left_out]
    return [
        Rollout.from_scored(sample, scored, kl=kl, advantage_mean=advantage)
        for (sample, scored), kl, advantage in zip(kept, learned.kl, learned.advantage_mean, strict=True)
    ]
