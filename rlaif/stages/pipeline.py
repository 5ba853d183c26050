"""The whole method as a table: one row for each stage, in the order of the story.

Adding a stage takes its function and a row here. What a run needs at once (``actors.cluster.placement``) and which
stages a configuration has are derived from the table. A stage that the manifest lists is not run again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from rlaif.config.keys import SUITE_KEYS
from rlaif.config.schema import Config
from rlaif.engines.models import model_hash
from rlaif.errors import RunDirError, UserError, format_value
from rlaif.evaluation.answers import SNAPSHOTS
from rlaif.evaluation.elo import matches_kind
from rlaif.evaluation.gold_scores import GOLD_SCORES
from rlaif.evaluation.preference_scores import SCORED_BY, scores_kind
from rlaif.evaluation.suites import MODEL, answers_kind, harm_kind, refusal_kind
from rlaif.sizes.phases import has_preference_model
from rlaif.stages.evaluate import evaluate
from rlaif.stages.fit_preference_model import fit_preference_model
from rlaif.stages.inputs import InputChange, changes, data_at_hand
from rlaif.stages.label import LABEL_INPUTS, label, label_pairs
from rlaif.stages.read import read, read_all
from rlaif.stages.reinforcement.reinforce import reinforce, start_over
from rlaif.stages.revise import revise
from rlaif.stages.run import Run
from rlaif.stages.sources import forget_lost_sources
from rlaif.stages.suites import EVALUATION_INPUTS, evaluate_model
from rlaif.stages.supervise import supervise
from rlaif.stages.user_data import AXES, UserData
from rlaif.storage.run_dir import RunDir
from rlaif.storage.stored_run import Discrepancy, StoredRun

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the story.

    ``phases``: what it goes through, by their names in ``PHASES``. ``uses``: configuration keys whose content it
    depends on. ``makes``: the models of the run that it makes. ``kinds``: of the rows that it makes.
    ``left_out``: kinds of training rows, of which it records only those that it leaves out.
    ``applies``: whether a configuration has this stage at all.
    """

    name: str
    run: Callable[[Run], Awaitable[None]]
    phases: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    applies: Callable[[Config], bool] = lambda config: True


_HELD_OUT = ("evaluation.red_team", "evaluation.helpful", *SUITE_KEYS.values())
_PROMPTS = ("data.red_team", "data.helpful", *_HELD_OUT)
_JUDGE = ("labeller.model", "constitution", "labelling.examples", "labelling.template")

#: By name, in the order of the story.
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(name="read", run=read),
        Stage(
            name="revise",
            run=revise,
            phases=("revise",),
            uses=(*_PROMPTS, "generator.model", "constitution", "critique_revision.examples"),
            kinds=("revisions", "helpful_samples", "answers_helpful_only", answers_kind("helpful_only")),
        ),
        Stage(
            name="supervise",
            run=supervise,
            phases=("supervise",),
            uses=("supervision.base_model", "supervision.chat_template"),
            makes=("sl_cai",),
            left_out=("sft_rows",),
        ),
        Stage(
            name="label",
            run=label,
            phases=("compare", "label"),
            uses=(*_PROMPTS, *_JUDGE),
            kinds=("comparisons", "answers_sl_cai", answers_kind("sl_cai"), "preferences"),
        ),
        Stage(
            name="fit_preference_model",
            run=fit_preference_model,
            phases=("fit_preference_model",),
            uses=("data.helpful_pairs", "data.votes", *_HELD_OUT, "preference_model.base_model"),
            makes=(
                "preference_model",
                "preference_model_unfitted",
                "preference_model_test",
                "preference_model_test_unfitted",
            ),
            left_out=("pretraining_pairs", "preference_pairs", "reserve_pairs"),
            applies=has_preference_model,
        ),
        Stage(
            name="reinforce",
            run=reinforce,
            phases=("reinforce",),
            uses=(*_PROMPTS, *_JUDGE),
            makes=("rl_cai", "preference_model_refreshed"),
            kinds=("rollouts", "refresh_comparisons", "refresh_preferences"),
            left_out=("refresh_pairs",),
        ),
        Stage(
            name="evaluate",
            run=evaluate,
            phases=("evaluate", "score", "judge"),
            uses=(*_HELD_OUT, *_JUDGE, "miniature.lexicon"),
            kinds=(
                "answers_rl_cai",
                *(scores_kind(model, snapshot) for model in SCORED_BY for snapshot in SNAPSHOTS),
                GOLD_SCORES,
                answers_kind("rl_cai"),
                *(kind(snapshot) for snapshot in SNAPSHOTS for kind in (refusal_kind, harm_kind)),
                *map(matches_kind, AXES),
            ),
        ),
    )
}
#: ``rlaif label``: the labels of a user's own pairs, outside the story.
LABEL_PAIRS = Stage(name="label", run=label_pairs, phases=("label",), uses=LABEL_INPUTS, kinds=("preferences",))
#: ``rlaif evaluate``: the test suites for a user's own model, outside the story.
EVALUATE_MODEL = Stage(
    name="evaluate",
    run=evaluate_model,
    phases=("answer", "judge"),
    uses=EVALUATION_INPUTS,
    kinds=tuple(kind(MODEL) for kind in (answers_kind, refusal_kind, harm_kind)),
)


def story(config: Config) -> list[str]:
    """The stages that a configuration has."""
    return [name for name, stage in STAGES.items() if stage.applies(config)]


def take_up(data: UserData, run_dir: RunDir) -> None:
    """What comes before the stages of a run that goes on: its inputs are compared with what it used, and read again.

    Raises RunDirError as ``check_inputs`` and ``reopen_what_lost_rows`` do.
    """
    if run_dir.is_finished("read"):
        forget_lost_sources(run_dir)
        check_inputs(data, run_dir)
        reopen_what_lost_rows(data, run_dir)
        read_all(data, run_dir)


def check_stage(config: Config, name: str) -> None:
    """Raises UserError for a stage that ``config`` does not have."""
    if name not in (names := story(config)):
        shown = format_value(name)
        raise UserError(f"stage {shown}: no such stage in this configuration; one of: {', '.join(names)}")


def reopen(data: UserData, run_dir: RunDir, name: str) -> None:
    """Let a stage and those after it be run again; rows that would come out the same are kept."""
    check_stage(data.config, name)
    names = story(data.config)
    again = names[names.index(name) :]
    if "reinforce" in again:  # first: a run that is killed in between must not go on from an old checkpoint
        start_over(run_dir.path, run_dir.journal)
    run_dir.reopen(again)


def reopen_what_lost_rows(data: UserData, run_dir: RunDir) -> None:
    """Let the last finished stage be run again if the journal has lost rows of it.

    Raises RunDirError when later stages have built on what was lost.
    """
    for stage, lost in lost_rows(data.config, run_dir).items():
        told = "\n".join(map(str, lost))
        finished = [name for name in story(data.config) if run_dir.is_finished(name)]
        if stage != finished[-1]:
            raise RunDirError(
                f"{run_dir.path}: {told}\nthe stages after {stage} were made with the rows that are lost; put back a "
                f"copy of journal.sqlite, or make everything from {stage} on again with --from {stage}"
            )
        _logger.warning("%s: %s; %s is run again", run_dir.path, told, stage)
        reopen(data, run_dir, stage)


def lost_rows(config: Config, run: StoredRun) -> dict[str, list[Discrepancy]]:
    """Where the journal does not hold what the manifest says of finished stages: by stage, the last one first."""
    found = {}
    for name in reversed(story(config)):
        stage = STAGES[name]
        differing = [
            *(run.discrepancy(kind) for kind in stage.kinds),
            *(run.discrepancy(kind, recorded=False) for kind in stage.left_out),
        ]
        if run.is_finished(name) and any(differing):
            found[name] = [one for one in differing if one is not None]
    return found


async def run_pipeline(run: Run) -> None:
    for name in story(run.config):
        await _run_unless_done(run, name)


async def run_stage(run: Run, name: str) -> None:
    """Run one stage unless it is done. Raises UserError when the stage before it is not."""
    names = story(run.config)
    if name not in names:
        raise UserError(f"stage {name}: reinforcement.reward={run.config.reinforcement.reward} has none")
    before = names[: names.index(name)][-1:]
    if before and not run.run_dir.is_finished(before[0]):
        raise UserError(f"stage {name}: {before[0]} is not done in {run.run_dir.path}; run that stage first")
    await _run_unless_done(run, name)


async def _run_unless_done(run: Run, name: str) -> None:
    stage = STAGES[name]
    if run.run_dir.is_finished(name) and not _may_retry(run, stage):
        return
    with run.run_dir.time_stage(name, lambda: _made_models(run.run_dir, stage.makes)):
        await stage.run(run)
        await asyncio.to_thread(run.run_dir.settle_models, stage.makes)


def _may_retry(run: Run, stage: Stage) -> bool:
    """Whether rows of a finished stage failed for a cause outside themselves, and no later stage has built on it."""
    names = story(run.config)
    later = names[names.index(stage.name) + 1 :]
    built_on = any(run.run_dir.is_finished(name) for name in later)
    return not built_on and any(map(run.run_dir.journal.has_retries, stage.kinds))


def _made_models(run: StoredRun, names: Iterable[str]) -> dict[str, str]:
    return {name: model_hash(run.model(name)) for name in names if run.model(name).is_dir()}


def check_inputs(data: UserData, run: StoredRun) -> list[InputChange]:
    """What has changed since the run used it, and will be used as it is now.

    Raises RunDirError for changes in what a finished stage used or made: the stages after it depend on them.
    """
    stages = [STAGES[name] for name in story(data.config)]
    finished = [stage for stage in stages if run.is_finished(stage.name)]
    changed = list(changes(data, run, {key for stage in stages for key in stage.uses}))
    used = {key for stage in finished for key in stage.uses}
    refused = [_told(change, finished, run) for change in changed if change.key in used]
    for stage in finished:
        refused += [f"models/{name}: is not what {stage.name} made" for name in other_models(run, stage)]
    if refused:
        raise RunDirError(
            f"{run.path}: finished stages depend on what has changed since:\n"
            + "\n".join(refused)
            + "\nrestore it, choose another run_dir=, "
            "or go on from the first of these stages: rlaif run CONFIG --from STAGE"
        )
    return changed


def other_models(run: StoredRun, stage: Stage) -> list[str]:
    """Models of a finished stage that are not those that it made."""
    now = _made_models(run, stage.makes)
    return [name for name in stage.makes if run.made_models.get(name) != now.get(name)]


def outdated(config: Config, run: StoredRun) -> list[str]:
    """A line for everything that has changed since the run used it, as far as it is on this machine."""
    if config.data.comparisons:
        stages = [LABEL_PAIRS]
    elif answers_kind(MODEL) in run.all_rows:
        stages = [EVALUATE_MODEL]
    else:
        stages = [STAGES[name] for name in story(config)]
    keys = {key for stage in stages for key in stage.uses}
    return [_told(change, stages, run) for change in changes(data_at_hand(config), run, keys)]


def _told(change: InputChange, stages: Iterable[Stage], run: StoredRun) -> str:
    """A change, and who used what has changed, with how many rows were made of it."""
    users = [(stage.name, sum(map(run.journal.count, stage.kinds))) for stage in stages if change.key in stage.uses]
    return f"{change}; used by {', '.join(f'{name} ({num:,} rows)' if num else name for name, num in users)}"
