"""The whole method, a verb a line. A stage that the manifest calls done is not run again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

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

Stage = Callable[[Run], Awaitable[None]]

#: In the order of the story.
STAGES: dict[str, Stage] = {
    "read": read,
    "revise": revise,
    "supervise": supervise,
    "label": label,
    "fit_preference_model": fit_preference_model,
    "reinforce": reinforce,
    "evaluate": evaluate,
}


def story(config: Config) -> list[str]:
    """The stages that a configuration has: a direct reward does without a preference model."""
    without = {"fit_preference_model"} if config.reinforcement.reward == "direct" else set()
    return [name for name in STAGES if name not in without]


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
    with run.run_dir.timed(name):
        await STAGES[name](run)
