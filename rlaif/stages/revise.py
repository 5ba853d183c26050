"""Step 1. Consumes: red-team and helpful prompts. Waits for: the helpful-only engines. Produces: revisions/ and the
helpful-only model's answers to helpful prompts, both for supervision; its answers to the held-out prompts."""

from __future__ import annotations

from rlaif.prompting.examples import RevisionExample, read_examples
from rlaif.records import RevisionChain
from rlaif.stages.bookkeeping import collect
from rlaif.stages.held_out import sample_answers
from rlaif.stages.run import Run
from rlaif.tasks.critique_revision import Revise, filter_metrics
from rlaif.tasks.sampling import SampleAnswer, draws


async def revise(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    task = Revise(
        seed=config.seed,
        constitution=run.constitution,
        settings=config.critique_revision,
        dialogue_format=config.dialogue_format,
        sampling=config.sampling,
        examples=read_examples(RevisionExample, config.critique_revision.examples, field="critique_revision.examples"),
    )
    sample = SampleAnswer(snapshot="helpful_only", dialogue_format=config.dialogue_format, sampling=config.sampling)
    helpful = (
        draw
        for prompt in run.prompts("helpful")
        for draw in draws(prompt, config.supervision.helpful_samples, config.seed, "helpful_sample")
    )
    num_helpful = run.num_prompts("helpful") * config.supervision.helpful_samples
    async with run.pool("generator", run.path(config.generator.model)) as pool:
        await collect(run, "revisions", pool, task, run.prompts("red_team"), run.num_prompts("red_team"))
        await collect(run, "helpful_samples", pool, sample, helpful, num_helpful)
        await sample_answers(run, pool, "helpful_only")
    run_dir.journal.export(RevisionChain, "revisions", run_dir.path / "revisions" / "revisions.parquet")
    run_dir.metrics.write("revise", filter_metrics(run_dir.journal.records(RevisionChain, "revisions")))
