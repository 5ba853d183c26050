"""Step 5. Consumes: models/sl_cai, models/preference_model, the prompts. Waits for: both trainers' ranks, all engines.
Produces: models/rl_cai, rollouts/, and, where the preference model is refreshed, models/preference_model_refreshed."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rlaif.config.schema import Config
from rlaif.errors import TrainerLostError
from rlaif.interfaces import PolicyLearner, PreferenceLearner, Task
from rlaif.jobs import PPOJob, RefreshJob
from rlaif.records import RolloutSample, ScoredSample
from rlaif.sizes.phases import engine_resources
from rlaif.stages.bookkeeping import account
from rlaif.stages.fit_preference_model import pair_builder
from rlaif.stages.label import label_task
from rlaif.stages.reinforcement.admission import Admission
from rlaif.stages.reinforcement.checkpoints import Checkpoint, Checkpoints, PreferenceCheckpoints
from rlaif.stages.reinforcement.context import LoopContext
from rlaif.stages.reinforcement.policy_loops import ROLLOUTS, PolicyLoops
from rlaif.stages.reinforcement.preference_loops import (
    REFRESH_COMPARISONS,
    REFRESH_PAIRS,
    REFRESH_PREFERENCES,
    PreferenceLoops,
    fitted_on,
    write_probes,
)
from rlaif.stages.reinforcement.preference_versions import PreferenceVersion, num_refreshes, version_for
from rlaif.stages.reinforcement.schedule import Schedule
from rlaif.stages.reinforcement.waits import Waits
from rlaif.stages.run import Run
from rlaif.storage.journal import Journal
from rlaif.storage.stored_run import StoredRun
from rlaif.tasks.direct_reward import RateSample
from rlaif.tasks.sampling import ScoreSample

CHECKPOINTS = "checkpoints"  #: the directory of a run's checkpoints
_LearnerT = TypeVar("_LearnerT", PolicyLearner, PreferenceLearner)


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """Where scores come from: a pool's role and model, and the task that it runs."""

    role: str
    model: str
    task: Task[RolloutSample, ScoredSample]


@dataclass(frozen=True, kw_only=True)
class Learners:
    policy: PolicyLearner
    preference: PreferenceLearner | None  #: None when the preference model is never refreshed


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where the loops begin: after the last checkpoint, or at the beginning."""

    batch: int
    policy: Checkpoint | None
    served: PreferenceVersion
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
            served=PreferenceVersion(version=version, weights=None, offset=offset),
            preference_path=str(model.path) if model else None,
        )


async def reinforce(run: Run) -> None:
    """Reinforce to the last batch. A trainer that is lost as a whole costs what came after the last checkpoint:
    everything is opened again and continues from there, as in a run that is resumed."""
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


def start_over(run_dir: Path, journal: Journal) -> None:
    """Forget what was reinforced so far."""
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)
    for kind in (ROLLOUTS, REFRESH_COMPARISONS, REFRESH_PREFERENCES, REFRESH_PAIRS):
        journal.forget_from(kind, 0)


def can_go_on(run_dir: StoredRun, config: Config) -> bool:
    """Whether the checkpoints that there are go together: the refreshed preference model that a resumed run would begin
    with can be fitted again, because what it was fitted on is still there."""
    last = Checkpoints(run_dir.path / CHECKPOINTS, config.reinforcement.keep_checkpoints).last()
    most = version_for(config.preference_model.refresh, last.version if last else 0)
    served = PreferenceCheckpoints(run_dir.path / CHECKPOINTS).latest(most)
    return served is None or fitted_on(run_dir, served.version).is_file()


async def _from_last_checkpoint(run: Run) -> None:
    path = run.run_dir.path.absolute() / CHECKPOINTS
    checkpoints = Checkpoints(path, run.config.reinforcement.keep_checkpoints)
    models = PreferenceCheckpoints(path)
    start = Start.of(run, checkpoints, models)
    run.run_dir.journal.forget_from(ROLLOUTS, start.batch)
    models.forget_after(start.served.version)
    await run.begin("reinforce")
    rewards = _rewards(run)
    roles = {"generator": str(run.run_dir.model("sl_cai")), rewards.role: rewards.model}
    if _num_refreshes(run):
        roles["labeller"] = run.path(run.config.labeller.model)
    async with _learners(run, start, rewards, roles) as learners:
        await _run_loops(run, rewards, learners, start, checkpoints, models)
        await learners.policy.save(run.run_dir.model("rl_cai"))
        if learners.preference is not None:
            await learners.preference.save(run.run_dir.model("preference_model_refreshed"))
    await run.release(*roles)


def _num_refreshes(run: Run) -> int:
    return num_refreshes(run.config.reinforcement, run.config.preference_model.refresh)


def _rewards(run: Run) -> Rewards:
    config = run.config
    if config.reinforcement.reward == "preference_model":
        task = ScoreSample(dialogue_format=run.format("policy"))
        return Rewards(role="scorer", model=str(run.run_dir.model("preference_model")), task=task)
    rate = RateSample(
        seed=config.seed,
        constitution=run.constitution,
        settings=config.labelling,
        dialogue_format=run.format("labeller"),
    )
    return Rewards(role="labeller", model=run.path(config.labeller.model), task=rate)


@asynccontextmanager
async def _learners(run: Run, start: Start, rewards: Rewards, roles: dict[str, str]) -> AsyncIterator[Learners]:
    """The trainers' ranks, and then the pools. Ranks that work together find whole nodes while these are empty; engines
    take what is left, the largest first."""
    async with AsyncExitStack() as opened:

        async def open_learner(opening: Awaitable[_LearnerT]) -> _LearnerT:
            learner = await opening
            opened.push_async_callback(learner.close)
            return learner

        async with asyncio.TaskGroup() as starting:
            policy = starting.create_task(open_learner(run.trainers.policy_learner(_ppo_job(run, start, rewards))))
            preference = None
            if _num_refreshes(run):
                refitting = run.trainers.preference_learner(_refresh_job(run, start))
                preference = starting.create_task(open_learner(refitting))
        async with asyncio.TaskGroup() as starting:
            for role in sorted(roles, key=lambda role: -engine_resources(getattr(run.config, role))["GPU"]):
                starting.create_task(run.start(role, roles[role]))
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


async def _run_loops(
    run: Run,
    rewards: Rewards,
    learners: Learners,
    start: Start,
    checkpoints: Checkpoints,
    preference_checkpoints: PreferenceCheckpoints,
) -> None:
    """Set all loops up and run them to the last batch."""
    context = LoopContext(
        run=run,
        generator=run.current_pool("generator"),
        schedule=Schedule.of(run),
        admission=Admission(version=start.batch, max_staleness=run.config.reinforcement.max_staleness),
        waits=Waits(run.config.reinforcement.stall_timeout_s),
        preference_checkpoints=preference_checkpoints,
    )
    policy = PolicyLoops(
        context=context,
        scorer=run.current_pool(rewards.role),
        score_task=rewards.task,
        learner=learners.policy,
        checkpoints=checkpoints,
        first=start.batch,
        served=start.served,
    )
    loops = [policy.roll_out, policy.score, policy.learn, policy.publish, policy.write]
    totals = {"reinforce": len(policy.batches)}
    if learners.preference is not None:
        preference = _preference_loops(context, learners.preference, start)
        loops += [preference.compare, preference.label, preference.refit]
        totals["refresh"] = len(preference.versions)
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


def _preference_loops(context: LoopContext, learner: PreferenceLearner, start: Start) -> PreferenceLoops:
    return PreferenceLoops(
        context=context,
        labeller=context.run.current_pool("labeller"),
        label_task=label_task(context.run, context.run.constitution),
        learner=learner,
        builder=pair_builder(context.run),
        first=start.served.version,
    )


async def _catch_up(policy: PolicyLoops, learners: Learners, start: Start) -> None:
    """Pools of a resumed run were opened with the first models: give them those of the last checkpoint."""
    if start.batch:
        await policy.context.generator.update_weights(await learners.policy.weights())
    if start.served.version and learners.preference is not None:
        await policy.scorer.update_weights(await learners.preference.weights())


def _account(run: Run) -> None:
    """Export what was made, and account for every row of it."""
    journal, run_dir = run.run_dir.journal, run.run_dir
    num = run_dir.export(ROLLOUTS)
    num_drawn = run.config.reinforcement.batches * run.config.reinforcement.batch_size
    account(run_dir, ROLLOUTS, rows_in=num_drawn, rows_out=num, max_loss=run.config.max_loss)
    if not (num_refreshed := _num_refreshes(run)):
        return
    num_in = num_refreshed * run.config.preference_model.refresh.comparisons
    for kind in (REFRESH_COMPARISONS, REFRESH_PREFERENCES):
        num = run_dir.export(kind)
        account(run_dir, kind, rows_in=num_in, rows_out=num, max_loss=run.config.max_loss)
        num_in = num
    num_left_out = journal.num_quarantined(REFRESH_PAIRS)
    account(run_dir, REFRESH_PAIRS, rows_in=num_in, rows_out=num_in - num_left_out, max_loss=run.config.max_loss)
