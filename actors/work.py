"""What a command can ask for: the pipeline, one stage, labels, or test suites. Its checks, Ray's resources included.

Knows no Ray: ``rlaif plan`` and ``rlaif submit`` check the same work that ``actors.driver`` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from actors.cluster.placement import Phases, check, phases_of, plan
from rlaif.config.keys import SUITE_KEYS
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.preflight import Needs, Runner, preflight
from rlaif.sizes.phases import PHASES, declared_resources, judges_suites
from rlaif.stages.label import label_pairs
from rlaif.stages.pipeline import EVALUATE_MODEL, reopen, run_pipeline, run_stage, take_up
from rlaif.stages.run import Run
from rlaif.stages.suites import evaluate_model
from rlaif.stages.user_data import UserData
from rlaif.storage.run_dir import RunDir


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is done, what it needs of the configuration, and which roles are alive at the same time. ``prepare`` comes
    before Ray starts."""

    go: Callable[[Run], Awaitable[None]]
    prepare: Callable[[UserData, RunDir], None] = take_up
    needs: Needs
    phases: Callable[[Config], Phases] = phases_of


PIPELINE = Work(go=run_pipeline, needs=Needs())
LABELS = Work(
    go=label_pairs,
    prepare=lambda data, run_dir: None,  # labels are made again one by one
    needs=Needs(models=("labeller.model",), sources=("data.comparisons",), revises=False),
    phases=lambda _: {"label": ("labeller",)},
)


def evaluation_of(config: Config) -> Work:
    """The test suites for a user's own model, or answers that it has given."""
    is_finished = config.evaluation.answers is not None
    models = () if is_finished else ("generator.model",)
    judges = ("labeller.model",) if judges_suites(config) else ()
    phases = [name for name in EVALUATE_MODEL.phases if name != "answer" or not is_finished]
    return Work(
        go=evaluate_model,
        prepare=lambda data, run_dir: None,  # answers and verdicts are made again one by one
        needs=Needs(models=(*models, *judges), sources=(*SUITE_KEYS.values(), "evaluation.answers"), revises=False),
        phases=lambda config: {name: PHASES[name](config) for name in phases},
    )


def pipeline_from(name: str) -> Work:
    """The pipeline, with the stage ``name`` and those after it once more."""

    def prepare(data: UserData, run_dir: RunDir) -> None:
        reopen(data, run_dir, name)
        take_up(data, run_dir)

    return Work(go=run_pipeline, prepare=prepare, needs=Needs())


def one_stage(name: str) -> Work:
    return Work(go=lambda run: run_stage(run, name), needs=Needs(serves_all=False))


def check_work(config: Config, work: Work, runner: Runner) -> Constitution:
    """Check everything that can be known before a run directory is made and Ray starts; returns the constitution.

    Raises UserError: what ``preflight`` raises, then PlacementError when the declared resources cannot hold the work,
    or the memory and the disk of what there is.
    """
    constitution = preflight(config, work.needs, runner)
    if runner != "in_process":
        from rlaif.sizes.refusals import check_sizes  # torch, which other commands can do without

        phases = work.phases(config)
        check(plan(config, phases), declared_resources(config))
        check_sizes(config, phases, is_here=runner != "job")
    return constitution
