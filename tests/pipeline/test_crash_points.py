"""A run that is stopped at every durable write, and resumed: it ends as it would have, or refuses by name.

The run is small, its engines and trainers are scripted, and it is resumed in another place than it began in. By default
a sample of the points is tried; with ``RLAIF_ALL_CRASH_POINTS=1`` (``make crash-points``), all of them.
"""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from actors.driver import drive
from actors.work import PIPELINE
from rlaif.config.schema import Config
from rlaif.engines.models import model_hash
from rlaif.errors import RunDirError
from rlaif.stages.run import Silent
from tests.conftest import write_lines
from tests.power_failures import Recorder, distinct, write

SAMPLED = 20  #: points that are tried by default
TABLES = ("revisions/revisions", "comparisons/comparisons", "preferences/preferences", "rollouts/rollouts")
REFRESHED = ("comparisons/refresh", "preferences/refresh")
INCIDENTAL = ("seconds",)


@pytest.fixture
def config(tiny_config: Config, tmp_path: Path) -> Config:
    prompts = [{"prompt": f"How do I do thing {i}?"} for i in range(6)]
    data = {
        "red_team": write_lines(tmp_path / "red_team.jsonl", [*prompts, {"no_prompt": 1}]),
        "helpful": write_lines(tmp_path / "helpful.jsonl", prompts[:3]),
    }
    values = tiny_config.model_dump()
    for role in ("generator", "labeller", "scorer", "policy_trainer", "preference_trainer"):
        values[role] |= {"engine": "scripted"}
    values["data"] |= data
    values["evaluation"] |= {"answers_per_cell": 2}
    values["evaluation"] |= {
        axis: write_lines(tmp_path / f"held_out_{axis}.jsonl", [{"prompt": f"What is {axis} {i}?"} for i in range(2)])
        for axis in ("red_team", "helpful")
    }
    values["reinforcement"] |= {"batches": 4, "batch_size": 2, "minibatch_size": 2, "checkpoint_every": 1}
    values["preference_model"]["refresh"] |= {"every": 1, "comparisons": 2, "max_lag": 1, "probes": 2}
    return Config.model_validate(values)


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = [{k: v for k, v in row.items() if k not in INCIDENTAL} for row in pq.read_table(path).to_pylist()]
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids), f"{path}: rows twice"
    return rows


def left_by(run_dir: Path) -> dict[str, Any]:
    """Everything that a run leaves behind, except for times."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    with closing(sqlite3.connect(run_dir / "journal.sqlite")) as db:
        records = [
            (*key, {k: v for k, v in json.loads(record).items() if k not in INCIDENTAL})
            for *key, record in db.execute("SELECT kind, batch, id, fingerprint, record FROM records ORDER BY 1, 2, 3")
        ]
        quarantine = db.execute("SELECT * FROM quarantine ORDER BY 1, 2, 3").fetchall()
    return {
        **{name: rows_of(run_dir / f"{name}.parquet") for name in (*TABLES, *REFRESHED)},
        "records": records,
        "quarantine": quarantine,
        "rows": manifest["rows"],
        "stages": list(manifest["stages"]),
        "made": manifest["models"],
        "models": {name: model_hash(run_dir / "models" / name) for name in manifest["models"]},
        "learned": {path.parent.name: path.read_text() for path in run_dir.glob("models/*/*digest.json")},
        "evaluation": json.loads((run_dir / "evaluation.json").read_text()),
        "quarantine.jsonl": (run_dir / "quarantine.jsonl").read_text(),
        "quality": json.loads((run_dir / "label_quality.json").read_text()),
    }


async def test_a_run_that_is_stopped_at_any_durable_write_ends_as_if_it_had_not_been(config, tmp_path):
    recorder = Recorder(tmp_path / "run", tmp_path / "graveyard")
    with recorder.watching():
        undisturbed = await drive(config, Silent(), PIPELINE, in_process=True)
    wanted = left_by(undisturbed)
    points = list(distinct(recorder.moments))
    step = 1 if os.environ.get("RLAIF_ALL_CRASH_POINTS") else max(1, len(points) // SAMPLED)
    tried = points[::step]
    refused = []
    for number, (what, tree) in enumerate(tried):
        place = write(tree, tmp_path / "found" / str(number))
        try:
            await drive(config.model_copy(update={"run_dir": str(place)}), Silent(), PIPELINE, in_process=True)
        except RunDirError as error:
            refused.append(f"{what}: {error}")
        except Exception as error:
            error.add_note(what)
            raise
        else:
            assert left_by(place) == wanted, what
        shutil.rmtree(place)
    print(f"\n{len(recorder.moments)} durable writes, {len(points)} states of the disk after a loss")
    print(f"{len(tried)} resumed: {len(tried) - len(refused)} ended as undisturbed, {len(refused)} refused")
    assert not refused, "\n".join(refused)
