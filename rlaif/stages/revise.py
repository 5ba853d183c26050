"""Step 1. Consumes: red-team and helpful prompts. Waits for: the helpful-only engines. Produces: revisions/ and the
helpful-only model's answers to helpful prompts, both for supervision; its answers to the held-out prompts."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.prompting.examples import RevisionExample, read_examples
from rlaif.records import RevisionChain
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.held_out import sample_answers
from rlaif.stages.run import Run
from rlaif.tasks.critique_revision import Revise, filter_metrics
from rlaif.tasks.sampling import Draw, SampleAnswer, draws


async def revise(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    await run.begin("revise")
    task = Revise(
        seed=config.seed,
        constitution=run.constitution,
        settings=config.critique_revision,
        dialogue_format=run.format("generator"),
        sampling=config.sampling,
        examples=read_examples(RevisionExample, config.critique_revision.examples, field="critique_revision.examples"),
    )
    sample = SampleAnswer(snapshot="helpful_only", dialogue_format=run.format("generator"), sampling=config.sampling)
    model = run.path(config.generator.model)
    await record(
        run, Recording(kind="revisions", task=task, rows=lambda: run.prompts("red_team"), role="generator", model=model)
    )
    await record(
        run,
        Recording(kind="helpful_samples", task=sample, rows=lambda: _helpful(run), role="generator", model=model),
    )
    await sample_answers(run, "helpful_only", model)
    run_dir.export("revisions")
    run_dir.metrics.write("revise", filter_metrics(run_dir.journal.records(RevisionChain, "revisions")))


def _helpful(run: Run) -> Iterator[Draw]:
    """Every helpful prompt, as often as it is answered."""
    for prompt in run.prompts("helpful"):
        yield from draws(prompt, run.config.supervision.helpful_samples, run.config.seed, "helpful_sample")
