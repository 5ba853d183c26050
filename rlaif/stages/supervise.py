"""Step 2. Consumes: revisions and helpful samples. Waits for: the policy trainer's ranks. Produces: models/sl_cai."""

from __future__ import annotations

from rlaif.jobs import SFTJob
from rlaif.records import Answer, RevisionChain
from rlaif.stages.run import Run
from rlaif.training.training_sets import sft_rows, write_sft_rows


async def supervise(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    dataset = run_dir.training_set("supervision")
    counts = write_sft_rows(
        dataset,
        sft_rows(
            run_dir.journal.records(RevisionChain, "revisions"),
            run_dir.journal.records(Answer, "helpful_samples"),
            run.policy_tokenizer,
            config.dialogue_format,
            config.supervision,
        ),
    )
    job = SFTJob(
        base_model=run.path(config.supervision.base_model),
        dataset=str(dataset),
        output=str(run_dir.model("sl_cai")),
        max_length=config.supervision.max_length,
        optimization=config.supervision.optimization,
        trainer=config.policy_trainer,
        seed=config.seed,
    )
    await run.release("generator")
    run.progress.start("supervise", None)
    metrics = await run.trainers.supervise(job)
    run.progress.finish("supervise")
    run_dir.metrics.write("supervise", metrics)
    run_dir.account("supervise", rows_in=counts.rows_in, rows_out=counts.rows_out, quarantined=counts.left_out)
