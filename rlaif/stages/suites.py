"""Test suites. Consumes: their prompts. Waits for: a snapshot's engines, for its answers; the labeller's, for the
verdicts. Produces: suite_answers_*, refusal_verdicts_*, harm_verdicts_* in the journal, which ``evaluation.suites``
measures.

``evaluate_model`` does this for a model that a user brings (``rlaif evaluate``), without the rest of the method."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from rlaif.config.keys import SUITE_KEYS
from rlaif.evaluation.evaluations import write_evaluation
from rlaif.evaluation.report import write_report
from rlaif.evaluation.suites import MODEL, answers_kind, harm_kind, refusal_kind
from rlaif.ids import fingerprint
from rlaif.interfaces import RecordedTask
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Axis, Provenance, Status, SuiteAnswer
from rlaif.seeds import seed_from
from rlaif.sizes.phases import has_suites, judges_suites
from rlaif.stages.bookkeeping import Recording, account, record
from rlaif.stages.read import read_inputs
from rlaif.stages.run import Run
from rlaif.stages.user_data import AXES
from rlaif.tasks.judging import JudgeHarm, JudgeRefusal
from rlaif.tasks.sampling import Draw, SampleSuiteAnswer

#: What the evaluation of a user's model is made of, by configuration key.
EVALUATION_INPUTS = ("generator.model", "labeller.model", "evaluation.answers", *SUITE_KEYS.values())
ANSWERS_AT_ONCE = 256  #: finished ones that are written together


async def evaluate_model(run: Run) -> None:
    """Let ``generator.model`` answer the test suites, or take ``evaluation.answers``, and judge the answers. What is
    recorded already stays, unless what it was made of has changed."""
    read_inputs(run, run.run_dir, EVALUATION_INPUTS)
    try:
        if run.config.evaluation.answers is None:
            await run.begin("answer")
            await answer_suites(run, MODEL, run.path(run.config.generator.model))
        else:
            _keep_answers(run)
        await run.begin("judge")
        await judge_suites(run, (MODEL,))
        await run.release()
        write_evaluation(run.run_dir, load_lexicon(run.config.miniature.lexicon))
    finally:
        run.run_dir.write_quarantine()
    write_report(run.run_dir.path)


def _keep_answers(run: Run) -> None:
    """Record the answers that the user brings, as if they had been sampled."""
    kind, journal = answers_kind(MODEL), run.run_dir.journal
    journal.survey(kind, run.finished_answers(), fingerprint)
    journal.drop_outdated(kind)
    pending = journal.pending(kind, run.finished_answers())
    while answers := list(islice(pending, ANSWERS_AT_ONCE)):
        journal.add_all(kind, answers, fingerprints={answer.id: fingerprint(answer) for answer in answers})
    num_good, num_bad = journal.count(kind), journal.num_quarantined(kind)
    account(run.run_dir, kind, rows_in=num_good + num_bad, rows_out=num_good, max_loss=run.config.max_loss)


async def answer_suites(run: Run, snapshot: str, model: str) -> None:
    """Answers of ``snapshot``, which is ``model``, to the prompts of all suites that are configured, one each."""
    if not has_suites(run.config):
        return
    format = run.format("policy" if snapshot in ("sl_cai", "rl_cai") else "generator")
    task = SampleSuiteAnswer(snapshot=snapshot, dialogue_format=format, sampling=run.config.sampling)
    kind = answers_kind(snapshot)
    await record(
        run, Recording(kind=kind, task=task, rows=lambda: _draws(run, snapshot), role="generator", model=model)
    )


def _draws(run: Run, snapshot: str) -> Iterator[Draw]:
    for suite in SUITE_KEYS:
        if getattr(run.config.evaluation.suites, suite) is not None:
            for prompt in run.suite_prompts(suite):
                seed = seed_from(run.config.seed, "suite", snapshot, prompt.id)
                yield Draw(id=prompt.id, prompt=prompt, seed=seed)


async def judge_suites(run: Run, snapshots: tuple[str, ...]) -> None:
    """Verdicts on all answers of ``snapshots``: what each does, and how much those on the red-team axis would help."""
    if not judges_suites(run.config):
        return
    labelling, format = run.config.labelling, run.format("labeller")
    min_mass, timeout_s = labelling.min_letter_mass, labelling.timeout_s
    refusal = JudgeRefusal(dialogue_format=format, min_mass=min_mass, timeout_s=timeout_s)
    harm = JudgeHarm(dialogue_format=format, min_mass=min_mass, timeout_s=timeout_s)
    for snapshot in snapshots:
        await _judge(run, snapshot, refusal_kind(snapshot), refusal, AXES)
        await _judge(run, snapshot, harm_kind(snapshot), harm, ("red_team",))


async def _judge(
    run: Run, snapshot: str, kind: str, task: RecordedTask[SuiteAnswer, Provenance], axes: tuple[Axis, ...]
) -> None:
    """Verdicts on the answers of a snapshot to prompts on ``axes``, if there are any."""

    def answers() -> Iterator[SuiteAnswer]:
        """Those that there are: what was never given cannot be judged."""
        recorded = run.run_dir.journal.records(SuiteAnswer, answers_kind(snapshot))
        return (answer for answer in recorded if answer.status == Status.OK and answer.axis in axes)

    if any(True for _ in answers()):
        model = run.path(run.config.labeller.model)
        await record(run, Recording(kind=kind, task=task, rows=answers, role="labeller", model=model))
