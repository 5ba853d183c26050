"""Test suites. Consumes: their prompts. Waits for: a snapshot's engines, for its answers; the labeller's, for the
verdicts. Produces: suite_answers_*, refusal_verdicts_*, harm_verdicts_* in the journal, which ``evaluation.suites``
measures.

``evaluate_model`` does this for a model that a user brings (``rlaif evaluate``), without the rest of the method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from rlaif.config.keys import SUITE_KEYS
from rlaif.evaluation.evaluations import write_evaluation
from rlaif.evaluation.report import write_report
from rlaif.evaluation.suites import MODEL, answers_kind, harm_kind, likeliest, refusal_kind
from rlaif.ids import fingerprint
from rlaif.interfaces import RecordedTask
from rlaif.miniature.lexicon import load_lexicon
from rlaif.prompting.thoughts import without_thoughts
from rlaif.records import Provenance, RefusalVerdict, Status, SuiteAnswer
from rlaif.seeds import seed_from
from rlaif.sizes.phases import has_suites, judges_suites
from rlaif.stages.bookkeeping import Recording, account, record
from rlaif.stages.read import read_inputs
from rlaif.stages.run import Run
from rlaif.tasks.judging import JudgeHarm, JudgeRefusal
from rlaif.tasks.sampling import UNFINISHED, Draw, SampleSuiteAnswer

#: What the evaluation of a user's model is made of, by configuration key.
EVALUATION_INPUTS = ("generator.model", "labeller.model", "evaluation.answers", *SUITE_KEYS.values())
ANSWERS_AT_ONCE = 256  #: finished ones that are written together


async def evaluate_model(run: Run) -> None:
    """Let ``generator.model`` answer the test suites, or take ``evaluation.answers``, and judge the answers. What is
    recorded already stays, unless what it was made of has changed."""
    read_inputs(run, run.run_dir, EVALUATION_INPUTS)
    with run.run_dir.time_stage("evaluate"):
        if run.config.evaluation.answers is None:
            await run.begin("answer")
            await answer_suites(run, MODEL, run.path(run.config.generator.model))
        else:
            _keep_answers(run)
        await run.begin("judge")
        await judge_suites(run, (MODEL,))
        await run.release()
        write_evaluation(run.run_dir, load_lexicon(run.config.miniature.lexicon))
    write_report(run.run_dir.path)


def _keep_answers(run: Run) -> None:
    """Record the answers that the user brings, as if they had been sampled."""
    kind, journal = answers_kind(MODEL), run.run_dir.journal
    journal.survey(kind, _finished_answers(run), fingerprint)
    journal.drop_outdated(kind)
    pending = journal.pending(kind, _finished_answers(run))
    while answers := list(islice(pending, ANSWERS_AT_ONCE)):
        journal.add_all(kind, answers, fingerprints={answer.id: fingerprint(answer) for answer in answers})
    num_good, num_bad = journal.count(kind), journal.num_quarantined(kind)
    account(run.run_dir, kind, rows_in=num_good + num_bad, rows_out=num_good, max_loss=run.config.max_loss)


def _finished_answers(run: Run) -> Iterator[SuiteAnswer]:
    """Without the thoughts in them; one that is nothing but a thought without an end is no answer."""
    for answer in run.finished_answers():
        said = without_thoughts(answer.text)
        if said is None:
            yield replace(answer, text="", status=Status.INVALID, error=UNFINISHED)
        else:
            yield answer if said == answer.text else replace(answer, text=said)


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
        await _judge(run, snapshot, refusal_kind(snapshot), refusal, _given_answers)
        await _judge(run, snapshot, harm_kind(snapshot), harm, _answers_to_rate)


async def _judge(
    run: Run,
    snapshot: str,
    kind: str,
    task: RecordedTask[SuiteAnswer, Provenance],
    answers: Callable[[Run, str], Iterator[SuiteAnswer]],
) -> None:
    """Verdicts on those answers of a snapshot that ``answers`` finds, if there are any."""
    if any(True for _ in answers(run, snapshot)):
        model, rows = run.path(run.config.labeller.model), lambda: answers(run, snapshot)
        await record(run, Recording(kind=kind, task=task, rows=rows, role="labeller", model=model))


def _given_answers(run: Run, snapshot: str) -> Iterator[SuiteAnswer]:
    """The answers that there are: what was never given cannot be judged. A verdict does not depend on what people say
    of an answer, nor on its category."""
    for answer in run.run_dir.journal.records(SuiteAnswer, answers_kind(snapshot)):
        if answer.status == Status.OK:
            yield replace(answer, category="", gold=None)


def _answers_to_rate(run: Run, snapshot: str) -> Iterator[SuiteAnswer]:
    """Answers to prompts that ask for harm, but for refusals, whose harm is 0, and those that were not judged."""
    verdicts = run.run_dir.journal.records(RefusalVerdict, refusal_kind(snapshot))
    helping = {verdict.id for verdict in verdicts if verdict.probs and likeliest(verdict.probs) != "refusal"}
    return (a for a in _given_answers(run, snapshot) if a.axis == "red_team" and a.id in helping)
