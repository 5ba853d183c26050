"""What only a real card can show: all roles side by side on it, their starts in turns, and what a refused one says."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.cluster.start import open_cluster
from actors.pool.pool import EnginePool, RayPools
from rlaif.config.files import expand_home
from rlaif.config.schema import Config
from rlaif.engines.turns import StartTurn
from rlaif.errors import EngineError
from rlaif.small_model.make import DEFAULT_DIRECTORY, make_small_model
from tests.fake_gpus.test_placement_of_gpus import seen_by
from tests.tiny_models import MAX_LENGTH, saved, tiny_lm

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
SHARE = {"gpus": 0.3, "gpu_memory_fraction": 0.2, "dtype": "bfloat16", "max_length": MAX_LENGTH, "max_in_flight": 8}
SMALL_MODEL = expand_home(DEFAULT_DIRECTORY)


@pytest.fixture
def one_card() -> Iterator[None]:
    with open_cluster(Config(resources={"cpus": 8, "gpus": 1})):
        yield


def run_smoke(run_dir: Path, *changes: str) -> dict:
    """The manifest of a whole run of ``gpu_smoke``."""
    command = [sys.executable, "-m", "actors.cli", "run", "gpu_smoke", f"run_dir={run_dir}", *changes]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=1500)
    assert ended.returncode == 0, ended.stderr
    return json.loads((run_dir / "manifest.json").read_text())


def test_the_miniature_goes_through_every_stage_in_bfloat16(tmp_path: Path) -> None:
    manifest = run_smoke(tmp_path / "run")
    assert "evaluate" in manifest["stages"]
    assert all(rows["rows_in"] == rows["rows_out"] + rows["quarantined"] for rows in manifest["rows"].values())


def test_a_real_small_model_goes_through_every_stage_in_bfloat16(tmp_path: Path) -> None:
    make_small_model(SMALL_MODEL)
    keys = ("generator.model", "labeller.model", "supervision.base_model", "preference_model.base_model")
    gate = "labelling.gate.override=[flip_rate, order_correlation, invalid_rate, gold_accuracy]"
    changes = [*(f"{key}={SMALL_MODEL}" for key in keys), "dialogue_format=chat_template", "max_loss=1", gate]
    assert "evaluate" in run_smoke(tmp_path / "run", *changes)["stages"]


async def test_engines_that_share_the_card_start_in_turns_and_all_have_a_cache(one_card: None, tmp_path: Path) -> None:
    model = saved(tiny_lm(0, tied=True), tmp_path / "model")
    pools = RayPools(Config.model_validate({"generator": {**SHARE, "max": 3}}))
    pool: EnginePool = await pools.open("generator", model, 3)
    try:
        turns: list[StartTurn] = [turn for one in await seen_by(pool) for turn in one["turns"]]
    finally:
        await pool.close()
    turns.sort(key=lambda turn: turn.began)
    assert len(turns) == 3 and len({turn.card for turn in turns}) == 1
    assert all(before.ended <= after.began for before, after in itertools.pairwise(turns))


async def test_an_engine_without_room_says_what_the_card_had(one_card: None, tmp_path: Path) -> None:
    model = saved(tiny_lm(0, tied=True), tmp_path / "model")
    config = Config.model_validate({"labeller": {**SHARE, "gpu_memory_fraction": 0.001}})
    with pytest.raises(EngineError, match=r"GPU 0 had [\d.]+ of [\d.]+ GiB free, and .*labeller\.gpu_memory_fraction"):
        await RayPools(config).open("labeller", model)
