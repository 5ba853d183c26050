"""Trainers under Ray Train with real DeepSpeed ranks: no row lost, causes surface, a lost rank loses no batch."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.trainer import RayTrainers
from rlaif.config import Optimization, Trainer
from rlaif.errors import DataError, ModelError
from rlaif.training.jobs import SFTJob
from tests import tiny_model

pytestmark = pytest.mark.usefixtures("cluster")

NUM_ROWS = 37


def sft_job(tmp_path: Path, **changes: Any) -> SFTJob:
    rows = [{"id": str(i), "input_ids": [1 + i, 2, 3, 4 + i, 0], "prompt_length": 2} for i in range(NUM_ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=10)
    fields = {
        "base_model": tiny_model.make(tmp_path / "base"),
        "dataset": str(tmp_path / "rows.parquet"),
        "output": str(tmp_path / "out"),
        "max_length": 64,
        "optimization": Optimization(epochs=2, batch_size=8, learning_rate=1e-3),
        "trainer": Trainer(ranks=2, cpus=0.5, max_failures=1),
        "seed": 3,
    }
    return SFTJob(**{**fields, **changes})


async def test_supervised_fit_sees_every_row_on_two_ranks_while_actors_hold_all_other_cpus(tmp_path: Path) -> None:
    reported: list[Any] = []
    metrics = await RayTrainers(tmp_path, reported.append).supervise(sft_job(tmp_path))
    assert metrics["supervise/data/num_rows"] == 2 * NUM_ROWS
    assert metrics["supervise/optimization/num_steps"] == 10
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert len(reported) == 10
