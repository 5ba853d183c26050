"""Step 6. Consumes: models/rl_cai and the answers of the snapshots before it. Waits for: the generator's engines, with
``preference_model.test_split`` the scorer's, and with test suites or matches the labeller's. Produces: evaluation.json
with the judged answers and labels next to it, report.html, quarantine.jsonl."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from rlaif.evaluation.answers import SNAPSHOTS
from rlaif.evaluation.evaluations import write_evaluation
from rlaif.evaluation.gold_scores import GOLD_SCORES
from rlaif.evaluation.preference_scores import SCORED_BY, scores_kind
from rlaif.evaluation.report import write_report
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Answer, Rollout, Status
from rlaif.seeds import seed_from
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.held_out import sample_answers
from rlaif.stages.matches import play_matches
from rlaif.stages.run import Run
from rlaif.stages.suites import judge_suites
from rlaif.tasks.sampling import ScoreAnswer, ScoreRollout

ROLLOUTS_PER_BATCH = 32  #: that both preference models score


async def evaluate(run: Run) -> None:
    await run.begin("evaluate")
    await sample_answers(run, "rl_cai", str(run.run_dir.model("rl_cai")))
    await run.begin("score")
    if run.run_dir.model("preference_model_test").is_dir():
        await _score_answers(run)
        await _score_rollouts(run)
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


async def _score_rollouts(run: Run) -> None:
    """Ask the preference model that the policy did not learn from about a sample of each batch."""
    recording = Recording(
        kind=GOLD_SCORES,
        task=ScoreRollout(),
        rows=lambda: _sampled_rollouts(run),
        role="scorer",
        model=str(run.run_dir.model("preference_model_test")),
    )
    await record(run, recording)


def _sampled_rollouts(run: Run) -> Iterator[Rollout]:
    for batch in range(run.config.reinforcement.batches):
        rollouts = run.run_dir.journal.records(Rollout, "rollouts", batch)
        yield from heapq.nsmallest(ROLLOUTS_PER_BATCH, rollouts, key=lambda rollout: seed_from("gold", rollout.id))
