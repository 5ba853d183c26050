"""Step 2. Consumes: revisions and helpful samples. Waits for: the policy trainer's ranks. Produces: models/sl_cai."""

from __future__ import annotations

import itertools

from rlaif.jobs import SFTJob
from rlaif.records import Answer, RevisionChain
from rlaif.stages.bookkeeping import Book
from rlaif.stages.run import Run
from rlaif.training.training_rows import SFTBuilder
from rlaif.training.training_sets import write_sft_rows


async def supervise(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    await run.begin("supervise")
    dataset, journal, book = run_dir.training_set("supervision"), run_dir.journal, Book(run, "sft_rows")
    builder = SFTBuilder(
        tokenizer=run.policy_tokenizer, dialogue_format=run.format("policy"), settings=config.supervision
    )
    rows = itertools.chain(
        builder.from_revisions(journal.records(RevisionChain, "revisions")),
        builder.from_samples(journal.records(Answer, "helpful_samples")),
    )
    book.close(write_sft_rows(dataset, rows, book))
    job = SFTJob(
        base_model=run.path(config.supervision.base_model),
        dataset=str(dataset),
        output=str(run_dir.model("sl_cai")),
        max_length=config.supervision.max_length,
        optimization=config.supervision.optimization,
        trainer=run.fit_trainer("policy_trainer"),
        seed=config.seed,
        tokenizer=run.saved_policy_tokenizer(),
    )
    run.progress.start("supervise", None)
    metrics = await run.trainers.supervise(job)
    run.progress.finish("supervise")
    run_dir.metrics.write("supervise", metrics)
