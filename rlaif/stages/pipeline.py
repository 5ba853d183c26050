"""The whole method, a verb a line. A stage that the manifest calls done is not run again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rlaif.errors import UserError
from rlaif.stages.evaluate import evaluate
from rlaif.stages.fit_preference_model import fit_preference_model
from rlaif.stages.label import label
from rlaif.stages.read import read
from rlaif.stages.reinforce import reinforce
from rlaif.stages.revise import revise
from rlaif.stages.run import Run
from rlaif.stages.supervise import supervise

Stage = Callable[[Run], Awaitable[None]]

#: Each stage and what the manifest must call done before it can run.
STAGES: dict[str, tuple[Stage, str | None]] = {
    "read": (read, None),
    "revise": (revise, "read"),
    "supervise": (supervise, "revise"),
    "label": (label, "supervise"),
    "fit_preference_model": (fit_preference_model, "label"),
    "reinforce": (reinforce, "fit_preference_model"),
    "evaluate": (evaluate, "reinforce"),
}


async def run_pipeline(run: Run) -> None:
    for name in STAGES:
        await run_stage(run, name)


async def run_stage(run: Run, name: str) -> None:
    """Run one stage unless it is done. Raises UserError when the stage before it is not."""
    stage, before = STAGES[name]
    if before is not None and not run.run_dir.is_finished(before):
        raise UserError(f"stage {name}: {before} is not done in {run.run_dir.path}; run that stage first")
    if run.run_dir.is_finished(name):
        return
    with run.run_dir.timed(name):
        await stage(run)
