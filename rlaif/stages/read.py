"""Step 0. Consumes: every source. Waits for: nothing. Produces: counts of their rows, and the bad ones in quarantine,
so that they are named before an engine starts; hashes of the models and files that the run is made of."""

from __future__ import annotations

from collections.abc import Iterable

from rlaif.config.contradictions import flatten
from rlaif.constitution.principles import load_constitution
from rlaif.stages.inputs import INPUT_KEYS, input_hashes
from rlaif.stages.run import Run
from rlaif.stages.sources import SOURCES, read_source
from rlaif.stages.user_data import UserData
from rlaif.storage.run_dir import RunDir


async def read(run: Run) -> None:
    read_all(run, run.run_dir)


def read_all(data: UserData, run_dir: RunDir) -> None:
    """Read all inputs of the method."""
    own = ("data.comparisons", "evaluation.answers")  # of `rlaif label` and `rlaif evaluate` alone
    read_inputs(data, run_dir, [key for key in INPUT_KEYS if key not in own])


def read_inputs(data: UserData, run_dir: RunDir, keys: Iterable[str]) -> None:
    """Read what the configuration names under ``keys``. From now on, changes are told from what it is now."""
    wanted, values = list(keys), flatten(data.config)
    for key in SOURCES:
        if key in wanted and values[key] is not None:
            read_source(data, run_dir, key)
    run_dir.keep_inputs(input_hashes(data, wanted))
    run_dir.keep_constitution(load_constitution(data.config.constitution))
