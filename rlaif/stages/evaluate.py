"""Step 6. Consumes: the held-out prompts and the three snapshots. Waits for: the generator's engines. Produces:
evaluation.json and the judged answers beside it, report.html, quarantine.jsonl."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

from rlaif.evaluation.evaluations import write_evaluation
from rlaif.evaluation.report import write_report
from rlaif.interfaces import Pool
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Axis
from rlaif.seeds import seed_from
from rlaif.stages.run import Run, collect
from rlaif.tasks.sampling import Draw, SampleAnswer


async def evaluate(run: Run) -> None:
    async with run.pool("generator", str(run.run_dir.model("rl_cai"))) as pool:
        await sample_answers(run, pool, "rl_cai")
    await run.release()
    write_evaluation(run.run_dir, load_lexicon(run.config.miniature.lexicon))
    run.run_dir.write_quarantine()
    write_report(run.run_dir.path)


async def sample_answers(run: Run, pool: Pool, snapshot: str) -> None:
    """Answers of one snapshot to the held-out prompts, taken while its engines are up."""
    stage = f"answers_{snapshot}"
    if run.run_dir.is_accounted(stage):
        return
    task = SampleAnswer(snapshot=snapshot, dialogue_format=run.config.dialogue_format, sampling=run.config.sampling)
    await collect(run, stage, pool, task, _held_out(run, snapshot))


def _held_out(run: Run, snapshot: str) -> Iterator[Draw]:
    evaluation = run.config.evaluation
    yield from _cell(run, snapshot, evaluation.red_team, "red_team")
    yield from _cell(run, snapshot, evaluation.helpful, "helpful")


def _cell(run: Run, snapshot: str, source: str, axis: Axis) -> Iterator[Draw]:
    """Every held-out prompt, again and again until there are enough answers."""
    prompts = list(run.read(source, axis))
    num = max(run.config.evaluation.answers_per_cell, len(prompts))
    for i, prompt in enumerate(islice(cycle(prompts), num)):
        id = f"{prompt.id}#{axis}.{i // len(prompts)}"
        yield Draw(id=id, prompt=prompt, seed=seed_from(run.config.seed, "evaluation", snapshot, id))
