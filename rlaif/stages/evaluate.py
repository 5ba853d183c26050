"""Step 6. Consumes: models/rl_cai and the answers of the snapshots before it. Waits for: the generator's engines.
Produces: evaluation.json with the judged answers and labels next to it, report.html, quarantine.jsonl."""

from __future__ import annotations

from rlaif.evaluation.evaluations import write_evaluation
from rlaif.evaluation.report import write_report
from rlaif.miniature.lexicon import load_lexicon
from rlaif.stages.held_out import sample_answers
from rlaif.stages.run import Run


async def evaluate(run: Run) -> None:
    await sample_answers(run, "rl_cai", str(run.run_dir.model("rl_cai")))
    await run.release()
    write_evaluation(run.run_dir, load_lexicon(run.config.miniature.lexicon))
    run.run_dir.write_quarantine()  # the report counts it
    write_report(run.run_dir.path)
