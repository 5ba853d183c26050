"""Answers to the held-out prompts: each snapshot gives them in the stage in which its engines are up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

from rlaif.ids import evaluation_id
from rlaif.interfaces import Pool
from rlaif.records import Axis
from rlaif.seeds import seed_from
from rlaif.stages.bookkeeping import collect
from rlaif.stages.run import Run
from rlaif.tasks.sampling import Draw, SampleAnswer


async def sample_answers(run: Run, pool: Pool, snapshot: str) -> None:
    """Answers of ``snapshot``, which ``pool`` serves, to the held-out prompts of both axes."""
    kind = f"answers_{snapshot}"
    if run.run_dir.is_accounted(kind):
        return
    task = SampleAnswer(snapshot=snapshot, dialogue_format=run.config.dialogue_format, sampling=run.config.sampling)
    await collect(run, kind, pool, task, _draws(run, snapshot))


def _draws(run: Run, snapshot: str) -> Iterator[Draw]:
    evaluation = run.config.evaluation
    yield from _cell(run, snapshot, evaluation.red_team, "red_team")
    yield from _cell(run, snapshot, evaluation.helpful, "helpful")


def _cell(run: Run, snapshot: str, source: str, axis: Axis) -> Iterator[Draw]:
    """Every held-out prompt, repeated until there are enough answers."""
    prompts = list(run.read(source, axis))
    num = max(run.config.evaluation.answers_per_cell, len(prompts))
    for i, prompt in enumerate(islice(cycle(prompts), num)):
        id = evaluation_id(prompt.id, axis, i // len(prompts))
        yield Draw(id=id, prompt=prompt, seed=seed_from(run.config.seed, "evaluation", snapshot, id))
