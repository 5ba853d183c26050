"""The driver: the ``rlaif run`` process. It prepares, starts Ray, hands pools and trainers to the stages, cleans up.

Order matters: everything that can be the user's mistake is found before the run directory is made, and everything
that can be found without Ray before Ray starts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from rlaif.config import Config
from rlaif.config_checks import MODEL_KEYS, check_for_cluster, check_sources, flatten
from rlaif.constitution import Constitution, load_constitution
from rlaif.data.tokenization import load_tokenizer
from rlaif.engines.models import check_model_dir, local_model
from rlaif.errors import ConfigError, ModelError
from rlaif.miniature.paths import miniature_paths
from rlaif.run_dir import RunDir, write_atomically
from rlaif.stages.pipeline import run_pipeline, run_stage
from rlaif.stages.run import Progress, Run

PACKAGES = ("rlaif", "ray", "torch", "deepspeed", "transformers")


async def drive(config: Config, progress: Progress, *, stage: str | None, in_process: bool) -> Path:
    """Run the pipeline (or one stage) to its end; returns the run directory.

    Raises UserError for mistakes, RunError for a run that failed; either way nothing keeps running, and the same
    command resumes.
    """
    constitution = load_constitution(config.constitution)
    check_sources(config)
    if not in_process:
        _check_cluster_plan(config)
    progress.start("miniature", None)
    paths = _paths(config, constitution)
    progress.finish("miniature")
    run_dir = RunDir(Path(config.run_dir), config)
    try:
        run_dir.write_manifest(versions={name: version(name) for name in PACKAGES}, constitution=constitution.hash)
        with _runner(config, run_dir, in_process) as (pools, trainers):
            run = Run(
                config=config,
                constitution=constitution,
                run_dir=run_dir,
                paths=paths,
                pools=pools,
                trainers=trainers,
                progress=progress,
            )
            try:
                await (run_pipeline(run) if stage is None else run_stage(run, stage))
            finally:
                await run.release()
    finally:
        run_dir.close()
    return run_dir.path


def _paths(config: Config, constitution: Constitution) -> dict[str, Path]:
    """Where every source and model that is a name is; each model is one, and PM and policy share a tokenizer."""
    paths, flat = dict(miniature_paths(config, constitution)), flatten(config)
    for key in MODEL_KEYS:
        paths.setdefault(flat[key], local_model(flat[key], field=key))
        check_model_dir(paths[flat[key]], field=key)
    policy, scorer = (flat[key] for key in ("supervision.base_model", "preference_model.base_model"))
    if load_tokenizer(paths[scorer]).get_vocab() != load_tokenizer(paths[policy]).get_vocab():
        raise ModelError(
            f"preference_model.base_model={scorer}: its tokenizer is not that of supervision.base_model={policy}; "
            "the preference model scores the policy's token ids, so they must share one"
        )
    return paths


@contextmanager
def _runner(config: Config, run_dir: RunDir, in_process: bool) -> Iterator[tuple]:
    """Where pools and trainers come from: this process, or Ray."""
    if in_process:
        from rlaif.stages.in_process import InProcessPools, InProcessTrainers

        yield InProcessPools(config), InProcessTrainers(_reporter(run_dir))
        return
    with _cluster(config, run_dir) as cluster:
        yield cluster


def _check_cluster_plan(config: Config) -> None:
    from actors.placement import check, declared, plan

    if problems := check_for_cluster(config):
        raise ConfigError("\n".join(problems))
    check(plan(config), declared(config))


@contextmanager
def _cluster(config: Config, run_dir: RunDir) -> Iterator[tuple]:
    from actors.placement import check, plan
    from actors.pool import RayPools
    from actors.ray_start import available, started
    from actors.trainer import RayTrainers

    with started(config) as address:
        check(plan(config), available())
        with _announced(run_dir, address):
            yield RayPools(config), RayTrainers(run_dir.path.absolute() / "ray_train", _reporter(run_dir))


def _reporter(run_dir: RunDir) -> Callable[[Mapping[str, float]], None]:
    """Metrics of a trainer as it goes; the stage is their first part."""
    return lambda metrics: run_dir.metrics.write(next(iter(metrics)).split("/")[0], metrics)


@contextmanager
def _announced(run_dir: RunDir, address: str) -> Iterator[None]:
    """``driver.json`` while the run lives, so that other commands find it."""
    path = run_dir.path / "driver.json"
    write_atomically(path, json.dumps({"pid": os.getpid(), "address": address, "started": time.time()}) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
