"""Step 5: reinforcement from the preference model's scores.

```
          draws of batch b            samples              scored batch b
schedule ─────────────────► generator ───────► scorer ─────────────────► learner ─► version v+1
              ▲ admitted when b <= v + S                                     │
              └──────────────── weights of v+1, verified ────────────────────┘
```
Loop      consumes             waits for                        unblocked by        produces
roll_out  the schedule         admission: b <= v + S            a learned batch     scored batches, in order
learn     scored batches       the next batch in order          roll_out            weights, rollouts, metrics

S is ``max_staleness``. With S = 0 the two loops take turns, which is the synchronous algorithm; the code is the same.
Batches form in the order of the schedule and nothing is dropped for its age.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.direct_reward import RateSample
from rlaif.interfaces import Learned, PolicyLearner, Pool, Task
from rlaif.records import Rollout, RolloutSample, ScoredSample, Status
from rlaif.sampling import RollOut, ScoreSample
from rlaif.stages.admission import Admission
from rlaif.stages.checkpoints import Checkpoints
from rlaif.stages.run import Run, failed
from rlaif.stages.schedule import Schedule, group_of
from rlaif.training.jobs import PPOJob


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """What the learner gets: samples and their scores, in the order of the schedule."""

    samples: Sequence[RolloutSample]
    scored: Sequence[ScoredSample]


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """Where scores come from: a pool's role and model, and the task that it is sent."""

    role: str
    model: str
    task: Task


@dataclass(frozen=True, kw_only=True)
class Engines:
    """The pools of the loops, and the task that makes a score of a sample."""

    generator: Pool
    scorer: Pool
    score: Task


async def reinforce(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    checkpoints = Checkpoints(run_dir.path.absolute() / "checkpoints")
    last = checkpoints.last()
    run_dir.journal.forget_from(_stage(last.version if last else 0))
    rewards = _rewards(run)
    job = PPOJob(
        policy=str(run_dir.model("sl_cai")),
        preference_model=None if rewards.role == "labeller" else rewards.model,
        settings=config.reinforcement,
        temperature=config.sampling.temperature,
        trainer=config.policy_trainer,
        seed=config.seed,
        checkpoint=str(last.path) if last else None,
    )
    learner, _, _ = await asyncio.gather(  # starting takes longer than many batches, so all start at once
        run.trainers.policy_learner(job),
        run.start("generator", str(run_dir.model("sl_cai"))),
        run.start(rewards.role, rewards.model),
    )
    try:
        async with (
            run.pool("generator", str(run_dir.model("sl_cai"))) as generator,
            run.pool(rewards.role, rewards.model) as scorer,
        ):
            engines = Engines(generator=generator, scorer=scorer, score=rewards.task)
            await _loops(run, engines, learner, checkpoints, first=last.version if last else 0)
        await learner.save(run_dir.model("rl_cai"))
    finally:
        await learner.close()
    await run.release("generator", rewards.role)
    num = run_dir.journal.export(Rollout, "rollouts/*", run_dir.path / "rollouts" / "rollouts.parquet")
    lost = run_dir.journal.num_quarantined("rollouts")
    run_dir.account("reinforce", rows_in=num + lost, rows_out=num, quarantined=lost)


def _rewards(run: Run) -> Rewards:
    config = run.config
    if config.reinforcement.reward == "preference_model":
        return Rewards(role="scorer", model=str(run.run_dir.model("preference_model")), task=ScoreSample())
    rate = RateSample(
        seed=config.seed,
        constitution=run.constitution,
        settings=config.labelling,
        dialogue_format=config.dialogue_format,
    )
    return Rewards(role="labeller", model=run.path(config.labeller.model), task=rate)


async def _loops(run: Run, engines: Engines, learner: PolicyLearner, checkpoints: Checkpoints, first: int) -> None:
    schedule = Schedule.of(run)
    admission = Admission(version=first, max_staleness=run.config.reinforcement.max_staleness)
    scored: asyncio.Queue[ScoredBatch] = asyncio.Queue()
    if first:
        await engines.generator.update_weights(await learner.weights())
    run.progress.start("reinforce", run.config.reinforcement.batches - first)
    async with asyncio.TaskGroup() as loops:
        loops.create_task(_roll_out(run, schedule, first, engines, admission, scored))
        loops.create_task(_learn(run, first, learner, engines.generator, admission, scored, checkpoints))
    run.progress.finish("reinforce")


async def _roll_out(
    run: Run,
    schedule: Schedule,
    first: int,
    engines: Engines,
    admission: Admission,
    scored: asyncio.Queue[ScoredBatch],
) -> None:
    task = RollOut(dialogue_format=run.config.dialogue_format, sampling=run.config.sampling)
    for batch in range(first, run.config.reinforcement.batches):
        await admission.wait(batch)
        samples = await _in_order(run, engines.generator, task, schedule.batch(batch))
        scores = await _in_order(run, engines.scorer, engines.score, samples)
        await scored.put(_scored_batch(samples, scores, run.config.reinforcement.group_size))


async def _learn(
    run: Run,
    first: int,
    learner: PolicyLearner,
    generator: Pool,
    admission: Admission,
    scored: asyncio.Queue[ScoredBatch],
    checkpoints: Checkpoints,
) -> None:
    for batch in range(first, run.config.reinforcement.batches):
        rollouts = await scored.get()
        learned = await learner.learn(rollouts.scored)
        await generator.update_weights(await learner.weights())
        run.run_dir.journal.add_all(_stage(batch), _records(rollouts, learned))
        run.run_dir.metrics.write("reinforce", learned.metrics, step=learned.version)
        if checkpoints.is_due(learned.version, run.config.reinforcement.checkpoint_every):
            await checkpoints.write(learned.version, learner.save_checkpoint)
        run.progress.advance("reinforce")
        await admission.advance(learned.version)


async def _in_order(run: Run, pool: Pool, task: Task, rows: Sequence[Any]) -> list[Any]:
    """Results of ``rows`` in their order; a row that fails is quarantined and leaves a gap."""
    results = {}
    async for done in pool.run(task, rows):
        if done.record is not None:
            results[done.row.id] = done.record
        else:
            run.quarantine(failed("rollouts", done.row, done.failure or "unknown"))
    return [results[row.id] for row in rows if row.id in results]


def _scored_batch(samples: Sequence[RolloutSample], scores: Sequence[ScoredSample], group_size: int) -> ScoredBatch:
    """Samples that have a score, in whole groups: a baseline over a group with a gap would be another baseline."""
    by_id = {score.id: score for score in scores}
    groups: dict[str, list[RolloutSample]] = {}
    for sample in samples:
        groups.setdefault(group_of(sample.id), []).append(sample)
    whole = [g for g in groups.values() if len(g) == group_size and all(s.id in by_id for s in g)]
    kept = [sample for group in whole for sample in group]
    return ScoredBatch(samples=kept, scored=[by_id[sample.id] for sample in kept])


def _records(batch: ScoredBatch, learned: Learned) -> list[Rollout]:
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
            preference_model_version=0,
            score=scored.score,
            kl=kl,
            advantage_mean=advantage,
        )
        for sample, scored, kl, advantage in zip(
            batch.samples, batch.scored, learned.kl, learned.advantage_mean, strict=True
        )
    ]


def _stage(batch: int) -> str:
    """Where a batch's rollouts are journalled, so that batches after a checkpoint can be forgotten."""
    return f"rollouts/{batch:08d}"
