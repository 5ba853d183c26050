"""Answers for the evaluation, to held-out prompts and to test suites: each snapshot gives them in the stage in which
its engines are up."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.ids import evaluation_id
from rlaif.records import Axis
from rlaif.seeds import seed_from
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.kept_prompts import KeptPrompts
from rlaif.stages.run import Run
from rlaif.stages.suites import answer_suites
from rlaif.stages.user_data import AXES
from rlaif.tasks.sampling import Draw, SampleAnswer


async def sample_answers(run: Run, snapshot: str, model: str) -> None:
    """Answers of ``snapshot``, which is ``model``, to the held-out prompts of both axes, and to test suites."""
    format = run.format("generator" if snapshot == "helpful_only" else "policy")
    task = SampleAnswer(snapshot=snapshot, dialogue_format=format, sampling=run.config.sampling)
    await record(
        run,
        Recording(
            kind=f"answers_{snapshot}", task=task, rows=lambda: _draws(run, snapshot), role="generator", model=model
        ),
    )
    await answer_suites(run, snapshot, model)


def _draws(run: Run, snapshot: str) -> Iterator[Draw]:
    for axis in AXES:
        yield from _cell(run, snapshot, axis)


def _cell(run: Run, snapshot: str, axis: Axis) -> Iterator[Draw]:
    """Every held-out prompt, repeated until there are enough answers."""
    prompts = KeptPrompts(run.held_out_prompts(axis), run.run_dir.path)
    num = max(run.config.evaluation.answers_per_cell, len(prompts))
    for i in range(num if len(prompts) else 0):
        answer, place = divmod(i, len(prompts))
        prompt = prompts[place]
        id = evaluation_id(prompt.id, axis, answer)
        yield Draw(id=id, prompt=prompt, seed=seed_from(run.config.seed, "evaluation", snapshot, id))
