"""The runner without Ray: what its trainers report as they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.config.trainer import Trainer
from rlaif.in_process import InProcessTrainers
from tests.tiny_models import saved, tiny_lm
from tests.unit.training.conftest import pair_rows, preference_job, sft_job, sft_rows

SCRIPTED = Trainer(engine="scripted")


def parquet(path: Path, rows: list[dict]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


async def test_metrics_are_reported_with_the_name_of_their_job(tmp_path: Path) -> None:
    reported: list[tuple[str, set[str]]] = []

    def report(name: str, metrics: Mapping[str, float]) -> None:
        reported.append((name, set(metrics)))

    base = saved(tiny_lm(0, tied=True), tmp_path / "base")
    trainers = InProcessTrainers(report)
    sft = sft_job(base, tmp_path / "sft", SCRIPTED)
    await trainers.supervise(replace(sft, dataset=parquet(tmp_path / "sft.parquet", sft_rows(8))))
    fit = replace(preference_job(base, tmp_path / "pm"), trainer=SCRIPTED, name="preference_test")
    pairs = parquet(tmp_path / "pairs.parquet", pair_rows(8))
    await trainers.fit_preference_model(
        replace(fit, pretraining=None, fit=pairs, heldout=pairs, unfitted=str(tmp_path / "unfitted"))
    )
    assert {name for name, _ in reported} == {"supervise", "preference_test"}
    assert all(key.startswith(f"{name}/") for name, keys in reported for key in keys)
