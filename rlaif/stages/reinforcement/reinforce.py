"""Step 5: reinforcement from the preference model's scores, and feedback on the policy's fresh answers meanwhile.

```
            draws of b           samples of b             scored b
 roll_out ─────────► generator ─────────► score ─► scorer ───────► learn ─► version v+1
     ▲ admitted when b <= v + S             ▲ model w(b)                        │
     └─────────────────────────── publish ◄─┼───────────────────────────────────┘
                                     │      └──────────────────────────────────────────────┐
                  every `every` versions                                                   │
                                     ▼                                                     │
     compare ─► generator ─► pairs of answers ─► label ─► labeller ─► labels ─► refit ─► model r
```
Loop      consumes              waits for                        unblocked by         produces
roll_out  the schedule          admission: b <= v + S            publish              samples, batch by batch
score     samples               model w(b) (``lag``)             roll_out, refit      scored batches
learn     scored batches        the next batch in order          score                weights, rollouts, metrics
publish   weights               every engine's proof             learn                versions that are served
compare   the schedule          policy version r * every         publish              comparisons, journalled
label     comparisons           the labeller's engines           compare              preferences, journalled
refit     preferences           the gate, the trainer's ranks    label                model r, re-centred

S is ``reinforcement.max_staleness``; ``lag`` says what ``preference_model.refresh.max_lag`` allows. With both 0 the
loops take turns, which is the sequential algorithm; the code is the same. Batches form in the order of the schedule,
refreshes and publishing fire on counts, and nothing is dropped for its age. Scripted engines answer by hash, so runs
over them end alike whatever was done at the same time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from rlaif.errors import TrainerLostError
from rlaif.interfaces import PolicyLearner, PreferenceLearner, Task
from rlaif.jobs import PPOJob, RefreshJob
from rlaif.records import Comparison, Preference, Rollout
from rlaif.stages.fit_preference_model import pair_builder
from rlaif.stages.label import label_task
from rlaif.stages.reinforcement.admission import Admission
from rlaif.stages.reinforcement.checkpoints import Checkpoint, Checkpoints, PreferenceCheckpoints
from rlaif.stages.reinforcement.lag import Refreshed, num_refreshes, version_for
from rlaif.stages.reinforcement.policy_loops import STAGE, PolicyLoops, batch_stage
from rlaif.stages.reinforcement.preference_loops import COMPARISONS, PREFERENCES, RefreshLoops, stage_of, write_probes
from rlaif.stages.reinforcement.schedule import Schedule
from rlaif.stages.reinforcement.waits import Waits
from rlaif.stages.run import Run
from rlaif.tasks.direct_reward import RateSample
from rlaif.tasks.sampling import ScoreSample

Learner = TypeVar("Learner", PolicyLearner, PreferenceLearner)


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """Where scores come from: a pool's role and model, and the task that it is sent."""

    role: str
    model: str
    task: Task


@dataclass(frozen=True, kw_only=True)
class Learners:
    policy: PolicyLearner
    preference: PreferenceLearner | None  #: None when the preference model is never refreshed


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where the loops begin: after the last checkpoint, or at the beginning."""

    batch: int
    policy: Checkpoint | None
    served: Refreshed  #: without weights for version 0, which the scorers were opened with
    preference_path: str | None

    @classmethod
    def of(cls, run: Run, checkpoints: Checkpoints, models: PreferenceCheckpoints) -> Start:
        last = checkpoints.last()
        batch = last.version if last else 0
        model = models.latest(version_for(run.config.preference_model.refresh, batch))
        version, offset = (model.version, model.offset) if model else (0, 0.0)
        return cls(
            batch=batch,
            policy=last,
            served=Refreshed(version=version, weights=None, offset=offset),
            preference_path=str(model.path) if model else None,
        )


async def reinforce(run: Run) -> None:
    """Reinforce to the last batch. A trainer that is lost as a whole costs what came after the last checkpoint: then
    everything is opened again and goes on from there, as in a run that is resumed."""
    for restarts in itertools.count():
        try:
            await _from_last_checkpoint(run)
            break
        except* TrainerLostError as lost:
            if restarts == run.config.policy_trainer.max_failures:
                raise
            run.run_dir.events.write("trainer_lost", cause=str(lost.exceptions[0]), restarts=restarts + 1)
            await run.release()
    _account(run)


async def _from_last_checkpoint(run: Run) -> None:
    path = run.run_dir.path.absolute() / "checkpoints"
    checkpoints = Checkpoints(path, run.config.reinforcement.keep_checkpoints)
    models = PreferenceCheckpoints(path)
    start = Start.of(run, checkpoints, models)
    run.run_dir.journal.forget_from(batch_stage(start.batch))
    models.forget_after(start.served.version)
    rewards = _rewards(run)
    roles = {"generator": str(run.run_dir.model("sl_cai")), rewards.role: rewards.model}
    if _refreshes(run):
        roles["labeller"] = run.path(run.config.labeller.model)
    async with _learners(run, start, rewards, roles) as learners:
        await _loops(run, rewards, learners, start, checkpoints, models)
        await learners.policy.save(run.run_dir.model("rl_cai"))
        if learners.preference is not None:
            await learners.preference.save(run.run_dir.model("preference_model_refreshed"))
    await run.release(*roles)


def _refreshes(run: Run) -> int:
    return num_refreshes(run.config.reinforcement, run.config.preference_model.refresh)


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


@asynccontextmanager
async def _learners(run: Run, start: Start, rewards: Rewards, roles: dict[str, str]) -> AsyncIterator[Learners]:
    """The trainers' ranks. Starting takes longer than many batches, so ranks and pools start at once."""
    async with AsyncExitStack() as opened:

        async def kept(opening: Awaitable[Learner]) -> Learner:
            learner = await opening
            opened.push_async_callback(learner.close)
            return learner

        async with asyncio.TaskGroup() as starting:
            policy = starting.create_task(kept(run.trainers.policy_learner(_ppo_job(run, start, rewards))))
            preference = None
            if _refreshes(run):
                preference = starting.create_task(kept(run.trainers.preference_learner(_refresh_job(run, start))))
            for role, model in roles.items():
                starting.create_task(run.start(role, model))
        yield Learners(policy=policy.result(), preference=preference.result() if preference else None)


def _ppo_job(run: Run, start: Start, rewards: Rewards) -> PPOJob:
    config = run.config
    return PPOJob(
        policy=str(run.run_dir.model("sl_cai")),
        preference_model=rewards.model if rewards.role == "scorer" else None,
        settings=config.reinforcement,
        temperature=config.sampling.temperature,
        trainer=config.policy_trainer,
        seed=config.seed,
        value_warmup_epochs=config.preference_model.refresh.value_warmup_epochs,
        checkpoint=str(start.policy.path) if start.policy else None,
    )


def _refresh_job(run: Run, start: Start) -> RefreshJob:
    return RefreshJob(
        model=str(run.run_dir.model("preference_model")),
        unfitted=str(run.run_dir.model("preference_model_unfitted")),
        probes=str(write_probes(run)),
        settings=run.config.preference_model,
        trainer=run.config.preference_trainer,
        seed=run.config.seed,
        checkpoint=start.preference_path,
    )


async def _loops(
    run: Run,
    rewards: Rewards,
    learners: Learners,
    start: Start,
    checkpoints: Checkpoints,
    models: PreferenceCheckpoints,
) -> None:
    """Set all loops up and run them to the last batch."""
    settings = run.config.reinforcement
    shared: dict[str, Any] = {
        "run": run,
        "generator": run.opened("generator"),
        "schedule": Schedule.of(run),
        "admission": Admission(version=start.batch, max_staleness=settings.max_staleness),
        "waits": Waits(settings.stall_timeout_s),
        "refreshed": asyncio.Queue(1),
    }
    policy = PolicyLoops(
        **shared,
        scorer=run.opened(rewards.role),
        score_task=rewards.task,
        learner=learners.policy,
        checkpoints=checkpoints,
        preference_checkpoints=models,
        first=start.batch,
        served=start.served,
    )
    loops, totals = [policy.roll_out, policy.score, policy.learn, policy.publish], {"reinforce": len(policy.batches)}
    if learners.preference is not None:
        refresh = _refresh_loops(run, learners.preference, start, models, shared)
        loops += [refresh.compare, refresh.label, refresh.refit]
        totals["refresh"] = len(refresh.versions)
    await _catch_up(policy, learners, start)
    run.run_dir.events.write("loops_started", batch=start.batch)
    for name, total in totals.items():
        run.progress.start(name, total)
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(loop())
    run.run_dir.events.write("loops_finished")
    for name in totals:
        run.progress.finish(name)


def _refresh_loops(
    run: Run, learner: PreferenceLearner, start: Start, models: PreferenceCheckpoints, shared: dict[str, Any]
) -> RefreshLoops:
    return RefreshLoops(
        **shared,
        labeller=run.opened("labeller"),
        label_task=label_task(run),
        learner=learner,
        builder=pair_builder(run),
        checkpoints=models,
        first=start.served.version,
    )


async def _catch_up(policy: PolicyLoops, learners: Learners, start: Start) -> None:
    """Pools of a resumed run were opened with the first models: give them those of the last checkpoint."""
    if start.batch:
        await policy.generator.update_weights(await learners.policy.weights())
    if start.served.version and learners.preference is not None:
        await policy.scorer.update_weights(await learners.preference.weights())


def _account(run: Run) -> None:
    """Export what was made, and account for every row of it."""
    journal, run_dir = run.run_dir.journal, run.run_dir
    num = journal.export(Rollout, f"{STAGE}/*", run_dir.path / STAGE / f"{STAGE}.parquet")
    drawn = run.config.reinforcement.batches * run.config.reinforcement.batch_size
    lost = journal.num_quarantined(f"{STAGE}/*")
    run_dir.account("reinforce", rows_in=drawn, rows_out=num, quarantined=lost)
    if num_refreshed := _refreshes(run):
        rows = num_refreshed * run.config.preference_model.refresh.comparisons
        for kind, record in ((COMPARISONS, Comparison), (PREFERENCES, Preference)):
            path = run_dir.path / kind.removeprefix("refresh_") / "refresh.parquet"
            num = journal.export(record, f"{kind}/*", path)
            lost = sum(journal.num_quarantined(stage_of(kind, r)) for r in range(1, num_refreshed + 1))
            run_dir.account(kind, rows_in=rows, rows_out=num, quarantined=lost)
            rows = num
