"""The driver: the ``rlaif run`` process. It prepares, starts Ray, hands pools and trainers to the stages, cleans up.

Order matters: everything that can be the user's mistake is found before the run directory is made, and everything
that can be found without Ray before Ray starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from actors.cluster.placement import Phases, phases_of
from rlaif.config.contradictions import flatten
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution, load_constitution
from rlaif.engines.models import check_model_dir, local_model
from rlaif.errors import ConfigError, ModelError, RunDirError
from rlaif.miniature.paths import miniature_paths
from rlaif.preflight import (
    MODEL_KEYS,
    SOURCE_KEYS,
    check_constitution,
    check_files,
    check_for_cluster,
    check_sources,
)
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.stages.label import label_pairs
from rlaif.stages.pipeline import run_pipeline, run_stage
from rlaif.stages.run import Progress, Run
from rlaif.storage.files import naming_full_disk
from rlaif.storage.run_dir import RunDir

SHARING = {"preference_model.base_model", "supervision.base_model"}
PACKAGES = ("rlaif", "ray", "torch", "deepspeed", "transformers")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run is to do, and what of its configuration that needs."""

    go: Callable[[Run], Awaitable[None]]
    models: tuple[str, ...] = MODEL_KEYS  #: configuration keys
    sources: tuple[str, ...] = SOURCE_KEYS
    phases: Callable[[Config], Phases] = phases_of
    revises: bool = True
    relabels: bool = False  #: goes on under a constitution that has changed


PIPELINE = Work(go=run_pipeline)
LABELS = Work(
    go=label_pairs,
    models=("labeller.model",),
    sources=("data.comparisons",),
    phases=lambda _: {"label": ("labeller",)},
    revises=False,
    relabels=True,
)


def one_stage(name: str) -> Work:
    return Work(go=lambda run: run_stage(run, name))


async def drive(config: Config, progress: Progress, work: Work, *, in_process: bool) -> Path:
    """Do ``work`` to its end; returns the run directory.

    Raises UserError for mistakes, RunError for a run that failed; either way nothing keeps running, and the same
    command resumes.
    """
    constitution = load_constitution(config.constitution)
    check_constitution(constitution, config, revises=work.revises)
    check_files(config)
    check_sources(config, work.sources, work.models)
    if not in_process:
        _check_cluster_plan(config, work)
    progress.start("miniature", None)
    paths = _paths(config, constitution, work)
    progress.finish("miniature")
    run_dir = RunDir(Path(config.run_dir), config)
    try:
        _keep_constitution(run_dir, constitution, work)
        run_dir.write_manifest(versions={name: version(name) for name in PACKAGES}, constitution=constitution.hash)
        async with _runner(config, run_dir, work, in_process) as (pools, trainers):
            run = Run(
                config=config,
                constitution=constitution,
                run_dir=run_dir,
                paths=paths,
                pools=pools,
                trainers=trainers,
                progress=progress,
            )
            with naming_full_disk(run_dir.path):
                try:
                    await work.go(run)
                finally:
                    await run.release()
    finally:
        run_dir.close()
    return run_dir.path


def _keep_constitution(run_dir: RunDir, constitution: Constitution, work: Work) -> None:
    stored = run_dir.constitution()
    if stored is None:
        run_dir.keep_constitution(constitution)
    elif stored.hash != constitution.hash and not work.relabels:
        raise RunDirError(
            f"{run_dir.path}: made under another version of constitution {constitution.name} "
            f"({stored.hash}, now {constitution.hash}); choose another run_dir=, or restore the file to resume"
        )


def _paths(config: Config, constitution: Constitution, work: Work) -> dict[str, Path]:
    """Where every source and model that is a name is; each model is one, and PM and policy share a tokenizer."""
    flat = flatten(config)
    paths = dict(miniature_paths(config, constitution, (*work.sources, *work.models)))
    for key in work.models:
        paths.setdefault(flat[key], local_model(flat[key], field=key))
        check_model_dir(paths[flat[key]], field=key)
    if SHARING.issubset(work.models):
        scorer, policy = (flat[key] for key in sorted(SHARING))
        _check_shared_tokenizer(scorer, policy, paths)
    return paths


def _check_shared_tokenizer(scorer: str, policy: str, paths: Mapping[str, Path]) -> None:
    if load_tokenizer(paths[scorer]).get_vocab() != load_tokenizer(paths[policy]).get_vocab():
        raise ModelError(
            f"preference_model.base_model={scorer}: its tokenizer is not that of supervision.base_model={policy}; "
            "the preference model scores the policy's token ids, so they must share one"
        )


@asynccontextmanager
async def _runner(config: Config, run_dir: RunDir, work: Work, in_process: bool) -> AsyncIterator[tuple]:
    """Where pools and trainers come from: this process, or Ray."""
    if in_process:
        from rlaif.in_process import InProcessPools, InProcessTrainers

        yield InProcessPools(config), InProcessTrainers(_reporter(run_dir))
        return
    async with _cluster(config, run_dir, work) as cluster:
        yield cluster


def _check_cluster_plan(config: Config, work: Work) -> None:
    from actors.cluster.placement import check, declared, plan

    if problems := check_for_cluster(config):
        raise ConfigError("\n".join(problems))
    check(plan(config, work.phases(config)), declared(config))


@asynccontextmanager
async def _cluster(config: Config, run_dir: RunDir, work: Work) -> AsyncIterator[tuple]:
    from actors.cluster.announcement import announced
    from actors.cluster.placement import check_nodes, plan
    from actors.cluster.start import current_namespace, nodes, started
    from actors.control import controlled
    from actors.pool.pool import RayPools
    from actors.trainer.trainer import RayTrainers

    phases = work.phases(config)
    with started(config) as address:
        check_nodes(plan(config, phases), nodes())
        pools, trainers = RayPools(config), RayTrainers(run_dir.path.absolute() / "ray_train", _reporter(run_dir))
        async with controlled(pools, trainers, phases) as control:
            with announced(run_dir.path, address=address, namespace=current_namespace(), control=control):
                yield pools, trainers


def _reporter(run_dir: RunDir) -> Callable[[Mapping[str, float]], None]:
    """Metrics of a trainer as it goes; the stage is their first part."""
    return lambda metrics: run_dir.metrics.write(next(iter(metrics)).split("/")[0], metrics)
