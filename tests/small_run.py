"""A run of the whole method that is small enough to be repeated a thousand times, and all that it leaves."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from actors.driver import drive
from actors.work import PIPELINE
from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from rlaif.engines.models import model_hash
from rlaif.stages.run import Silent
from tests.conftest import tiny_config_of, write_lines

TABLES = ("revisions/revisions", "comparisons/comparisons", "preferences/preferences", "rollouts/rollouts")
REFRESHED = ("comparisons/refresh", "preferences/refresh")
INCIDENTAL = ("seconds",)


def small(tiny_config: Config, place: Path) -> Config:
    """Six prompts, four batches, three refreshes; engines and trainers are scripted. Data files go to ``place``."""
    prompts = [{"prompt": f"How do I do thing {i}?"} for i in range(6)]
    data = {
        "red_team": write_lines(place / "red_team.jsonl", [*prompts, {"no_prompt": 1}]),
        "helpful": write_lines(place / "helpful.jsonl", prompts[:3]),
    }
    values = tiny_config.model_dump()
    for role in ("generator", "labeller", "scorer", "policy_trainer", "preference_trainer"):
        values[role] |= {"engine": "scripted"}
    values["data"] |= data
    values["evaluation"] |= {"answers_per_cell": 2}
    values["evaluation"] |= {
        axis: write_lines(place / f"held_out_{axis}.jsonl", [{"prompt": f"What is {axis} {i}?"} for i in range(2)])
        for axis in ("red_team", "helpful")
    }
    values["reinforcement"] |= {"batches": 4, "batch_size": 2, "minibatch_size": 2, "checkpoint_every": 1}
    values["preference_model"]["refresh"] |= {"every": 1, "comparisons": 2, "max_lag": 1, "probes": 2}
    return Config.model_validate(values)


def finished_run(tiny_world: dict[str, str], place: Path) -> Path:
    """``place`` with a finished ``run`` in it, and the ``config.yaml`` that it was made with."""
    config = small(tiny_config_of(tiny_world, place / "run"), place)
    (place / "config.yaml").write_text(dump_config(config))
    asyncio.run(drive(config, Silent(), PIPELINE, in_process=True))
    return place


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
