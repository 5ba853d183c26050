"""The driver: the ``rlaif run`` process. It prepares, starts Ray, hands pools and trainers to the stages, cleans up.

Order matters: every check that needs neither comes before the run directory is made and Ray starts (``actors.work``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from importlib.metadata import version
from pathlib import Path

from actors.work import Work, check_work
from rlaif.config.contradictions import flatten
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.engines.models import local_model
from rlaif.interfaces import Pools, Trainers
from rlaif.miniature.paths import miniature_paths
from rlaif.preflight import Needs, check_models
from rlaif.stages.run import Progress, Run
from rlaif.stages.user_data import UserData
from rlaif.storage.files import naming_full_disk
from rlaif.storage.run_dir import RunDir

PACKAGES = ("rlaif", "ray", "torch", "deepspeed", "transformers")


async def drive(config: Config, progress: Progress, work: Work, *, in_process: bool) -> Path:
    """Do ``work`` to the end; returns the run directory.

    Raises UserError for mistakes, RunError for a run that failed; in both cases nothing keeps running, and the same
    command resumes.
    """
    constitution = check_work(config, work, "in_process" if in_process else "ray")
    progress.start("miniature", None)
    paths = _locate(config, constitution, work.needs)
    progress.finish("miniature")
    with naming_full_disk(Path(config.run_dir)), closing(RunDir(Path(config.run_dir), config)) as run_dir:
        work.prepare(UserData(config=config, paths=paths), run_dir)
        run_dir.write_manifest(versions={name: version(name) for name in PACKAGES}, constitution=constitution.hash)
        async with _runner(config, run_dir, work, paths, in_process) as (pools, trainers):
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
                await work.go(run)
            finally:
                await run.release()
    return run_dir.path


def _locate(config: Config, constitution: Constitution, needs: Needs) -> dict[str, Path]:
    """The directory or file of every source and model that is a name: made, fetched, and checked."""
    flat = flatten(config)
    paths = dict(miniature_paths(config, constitution, (*needs.sources, *needs.models)))
    for key in needs.models:
        paths.setdefault(flat[key], local_model(flat[key], field=key))
    check_models(config, needs, paths)
    return paths


@asynccontextmanager
async def _runner(
    config: Config, run_dir: RunDir, work: Work, paths: Mapping[str, Path], in_process: bool
) -> AsyncIterator[tuple[Pools, Trainers]]:
    """Pools and trainers in this process, or on Ray."""
    if in_process:
        from actors.cluster.loopback import stay_on_loopback
        from rlaif.in_process import InProcessPools, InProcessTrainers

        stay_on_loopback()
        yield InProcessPools(config), InProcessTrainers(run_dir.metrics.write)
        return
    async with _cluster(config, run_dir, work, paths) as cluster:
        yield cluster


@asynccontextmanager
async def _cluster(
    config: Config, run_dir: RunDir, work: Work, paths: Mapping[str, Path]
) -> AsyncIterator[tuple[Pools, Trainers]]:
    """Pools and trainers on Ray, with the board on which ``rlaif status`` and ``rlaif scale`` put their orders."""
    from actors.cluster.announcement import announce
    from actors.cluster.board import Board
    from actors.cluster.nodes import check_every_node
    from actors.cluster.placement import check_nodes, plan
    from actors.cluster.start import current_namespace, nodes, open_cluster
    from actors.control import serve_orders
    from actors.pool.pool import RayPools
    from actors.trainer.trainer import RayTrainers

    phases = work.phases(config)
    with open_cluster(config) as address:
        needs = plan(config, phases)
        check_nodes(needs, [node["Resources"] for node in nodes()])
        await check_every_node(config, needs.claims, paths, run_dir.path, nodes())
        pools = RayPools(config)
        trainers = RayTrainers(run_dir.path.absolute() / "ray_train", run_dir.metrics.write)
        namespace = current_namespace()
        async with serve_orders(Board(address, namespace), pools, trainers, phases):
            with announce(run_dir.path, address=address, namespace=namespace):
                yield pools, trainers
