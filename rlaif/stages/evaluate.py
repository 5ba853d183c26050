"""Step 6. Consumes: models/rl_cai and the answers of the snapshots before it. Waits for: the generator's engines, with
``preference_model.test_split`` the scorer's, and with test suites or matches the labeller's. Produces: evaluation.json
with the judged answers and labels next to it, report.html, quarantine.jsonl."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.evaluation.answers import SNAPSHOTS
from rlaif.evaluation.evaluations import write_evaluation
from rlaif.evaluation.preference_scores import SCORED_BY, scores_kind
from rlaif.evaluation.report import write_report
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Answer, Status
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.held_out import sample_answers
from rlaif.stages.matches import play_matches
from rlaif.stages.run import Run
from rlaif.stages.suites import judge_suites
from rlaif.tasks.sampling import ScoreAnswer


async def evaluate(run: Run) -> None:
    await run.begin("evaluate")
    await sample_answers(run, "rl_cai", str(run.run_dir.model("rl_cai")))
    await run.begin("score")
    if run.run_dir.model("preference_model_test").is_dir():
        await _score_answers(run)
    await run.begin("judge")
    await judge_suites(run, tuple(SNAPSHOTS))
    await play_matches(run)
    await run.release()
    write_evaluation(run.run_dir, load_lexicon(run.config.miniature.lexicon))
    run.run_dir.write_quarantine()  # the report counts it
    write_report(run.run_dir.path)


async def _score_answers(run: Run) -> None:
    """Ask the preference model and the one that was fitted on the other half of the pairs."""
    for model in SCORED_BY:
        for snapshot in SNAPSHOTS:
            await record(run, _scoring(run, model, snapshot))


def _scoring(run: Run, model: str, snapshot: str) -> Recording[Answer]:
    def answers() -> Iterator[Answer]:
        recorded = run.run_dir.journal.records(Answer, f"answers_{snapshot}")
        return (answer for answer in recorded if answer.status == Status.OK)

    return Recording(
        kind=scores_kind(model, snapshot),
        task=ScoreAnswer(dialogue_format=run.format("policy")),
        rows=answers,
        role="scorer",
        model=str(run.run_dir.model(model)),
    )
