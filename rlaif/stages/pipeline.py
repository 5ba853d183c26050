"""The whole method as a table: one row for each stage, in the order of the story.

Adding a stage takes its function and a row here. What a run needs at once (``actors.cluster.placement``) and which
stages a configuration has are derived from the table. A stage that the manifest lists is not run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rlaif.config.schema import Config
from rlaif.errors import UserError
from rlaif.stages.evaluate import evaluate
from rlaif.stages.fit_preference_model import fit_preference_model
from rlaif.stages.label import label
from rlaif.stages.read import read
from rlaif.stages.reinforcement.reinforce import reinforce
from rlaif.stages.revise import revise
from rlaif.stages.run import Run
from rlaif.stages.supervise import supervise

Roles = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the story. ``roles``: of the pools and trainers that live while it runs, for a configuration;
    ``applies``: whether a configuration has this stage at all."""

    name: str
    run: Callable[[Run], Awaitable[None]]
    roles: Callable[[Config], Roles]
    applies: Callable[[Config], bool] = lambda config: True


def _always(*roles: str) -> Callable[[Config], Roles]:
    return lambda config: roles


def _has_preference_model(config: Config) -> bool:
    """A direct reward needs none."""
    return config.reinforcement.reward == "preference_model"


def _reinforcement_roles(config: Config) -> Roles:
    rewards = "scorer" if _has_preference_model(config) else "labeller"
    refreshing = ("labeller", "preference_trainer") if config.preference_model.refresh.every else ()
    return tuple(dict.fromkeys(("generator", rewards, "policy_trainer", *refreshing)))


#: By name, in the order of the story.
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(name="read", run=read, roles=_always()),
        Stage(name="revise", run=revise, roles=_always("generator")),
        Stage(name="supervise", run=supervise, roles=_always("policy_trainer")),
        Stage(name="label", run=label, roles=_always("generator", "labeller")),
        Stage(
            name="fit_preference_model",
            run=fit_preference_model,
            roles=_always("generator", "preference_trainer"),  # the generator stays for what comes next
            applies=_has_preference_model,
        ),
        Stage(name="reinforce", run=reinforce, roles=_reinforcement_roles),
        Stage(name="evaluate", run=evaluate, roles=_always("generator")),
    )
}


def story(config: Config) -> list[str]:
    """The stages that a configuration has."""
    return [name for name, stage in STAGES.items() if stage.applies(config)]


async def run_pipeline(run: Run) -> None:
    for name in story(run.config):
        await run_stage(run, name)


async def run_stage(run: Run, name: str) -> None:
    """Run one stage unless it is done. Raises UserError when the stage before it is not."""
    names = story(run.config)
    if name not in names:
        raise UserError(f"stage {name}: reinforcement.reward={run.config.reinforcement.reward} has none")
    before = names[: names.index(name)][-1:]
    if before and not run.run_dir.is_finished(before[0]):
        raise UserError(f"stage {name}: {before[0]} is not done in {run.run_dir.path}; run that stage first")
    if run.run_dir.is_finished(name):
        return
    with run.run_dir.time_stage(name):
        await STAGES[name].run(run)
